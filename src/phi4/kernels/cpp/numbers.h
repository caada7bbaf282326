// bf16 as stored, and how it becomes fp32 and back. Included into the namespace of a level.
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
