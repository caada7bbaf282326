// Groups of numbers rounded to whole ones from -127 to 127 with a scale. Included into the namespace of a level, behind
// numbers.h, by sources that are compiled without fused products and sums: plain torch computes the same bits.

// Below this, a group of a row is zero; 127 divided by it is still a number.
constexpr float SMALLEST = 1e-30f;
// Added to a number below 2^22 and taken away again, it rounds to the nearest whole one, ties to even.
constexpr float ROUNDING = 12582912.0f;

// Returns the sum of the whole numbers.
template <int COUNT, typename T>
int32_t round_group(const T* source, int8_t* values, float* scale) {
    float wide[COUNT];
    uint32_t largest_bits = 0;
    for (int n = 0; n < COUNT; ++n) {
        wide[n] = widen(source[n]);
        uint32_t bits;
        std::memcpy(&bits, &wide[n], sizeof bits);
        bits &= 0x7fffffff;
        // As whole numbers, infinity and NaN are above all others.
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    const bool finite = largest_bits < 0x7f800000;
    const float inverse = finite && largest >= SMALLEST ? 127.0f / largest : 0.0f;
    int32_t total = 0;
    for (int n = 0; n < COUNT; ++n) {
        const float rounded = finite ? wide[n] * inverse + ROUNDING - ROUNDING : 0.0f;
        values[n] = static_cast<int8_t>(static_cast<int32_t>(rounded));
        total += values[n];
    }
    *scale = largest >= SMALLEST ? largest / 127.0f : 0.0f;
    // One number that is none makes all that uses the group none.
    if (!finite) *scale = largest - largest;
    return total;
}
