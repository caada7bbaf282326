// Groups of numbers rounded to whole ones from -127 to 127 with a scale. Included into the namespace of a level, behind
// numbers.h, by sources that are compiled without fused products and sums: plain torch computes the same bits.

// Below this, a group of a row is zero; 127 divided by it is still a number.
constexpr float SMALLEST = 1e-30f;
// Added to a number below 2^22 and taken away again, it rounds to the nearest whole one, ties to even.
constexpr float ROUNDING = 12582912.0f;

// The bits of the largest number without its sign. As whole numbers, infinity and NaN are above all others.
template <int COUNT, typename T>
uint32_t largest_bits(const T* source) {
    uint32_t largest = 0;
    for (int n = 0; n < COUNT; ++n) {
        const float wide = widen(source[n]);
        uint32_t bits;
        std::memcpy(&bits, &wide, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

// What numbers are multiplied by to be rounded, and what they stand for then.
struct Rounding {
    float inverse;
    float scale;
    bool finite;
};

inline Rounding rounding_of(uint32_t bits) {
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    // One number that is none makes all that uses the scale none.
    if (bits >= 0x7f800000) return {0.0f, largest - largest, false};
    if (largest < SMALLEST) return {0.0f, 0.0f, true};
    return {127.0f / largest, largest / 127.0f, true};
}

// Returns the sum of the whole numbers.
template <int COUNT, typename T>
int32_t round_numbers(const T* source, const Rounding& rounding, int8_t* values) {
    if (!rounding.finite) {
        std::memset(values, 0, COUNT);
        return 0;
    }
    int32_t total = 0, rounded[COUNT];
    for (int n = 0; n < COUNT; ++n) {
        rounded[n] = static_cast<int32_t>(widen(source[n]) * rounding.inverse + ROUNDING - ROUNDING);
        total += rounded[n];
    }
    for (int n = 0; n < COUNT; ++n) values[n] = static_cast<int8_t>(rounded[n]);
    return total;
}

template <int COUNT, typename T>
int32_t round_group(const T* source, int8_t* values, float* scale) {
    const Rounding rounding = rounding_of(largest_bits<COUNT>(source));
    *scale = rounding.scale;
    return round_numbers<COUNT>(source, rounding, values);
}
