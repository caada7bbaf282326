// bf16 as stored, how it becomes fp32 and back, and the exponential. Included into the namespace of a level.
//
// Nothing of the standard library is instantiated in these files: the linker keeps one copy of an inline function, and it
// could be the one with instructions that this processor lacks.

struct bf16 {
    uint16_t bits;
};

inline float widen(float value) { return value; }

inline float widen(bf16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline void narrow(float value, float* out) { *out = value; }

// Rounds to the nearest, ties to even; NaN stays NaN.
inline void narrow(float value, bf16* out) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    out->bits = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}

// exp(x - n ln 2) where that is within ln 2 / 2 of 0, by a polynomial of degree 6; of a number or of a vector of them.
template <typename Value>
inline Value exp_of_rest(Value x, Value n) {
    Value rest = x - n * 0.693359375f;
    rest = rest + n * 2.12194440e-4f;
    Value sum = rest * (1.0f / 720) + 1.0f / 120;
    sum = sum * rest + 1.0f / 24;
    sum = sum * rest + 1.0f / 6;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    return sum * rest + 1.0f;
}

// exp(x) for x <= 0 with a relative error below 2e-7, and of no more than -87.
inline float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    const float n = std::nearbyintf(x * 1.44269504f);
    const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return exp_of_rest(x, n) * power;
}
