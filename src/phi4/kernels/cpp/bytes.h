// Sixteen sums of products of bytes, one for each output of a block. Included into the namespace of a level.
//
// `add_small` takes weights of 0 to 15 and is exact at every level: two products of bytes stay within 16 bits then.

#if defined(__AVX512F__)
struct Sixteen {
    __m512i lanes;
};
struct Floats {
    __m512 lanes;
};
typedef __m512i Codes;  // four inputs of each of sixteen outputs

inline Codes load_codes(const uint8_t* source) { return _mm512_loadu_si512(source); }
inline Codes low_half(Codes codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
inline Codes high_half(Codes codes) { return low_half(_mm512_srli_epi16(codes, 4)); }
inline Sixteen widen_bytes(const uint8_t* source) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)))};
}
inline Sixteen all(int32_t value) { return {_mm512_set1_epi32(value)}; }
inline Sixteen plus(Sixteen a, Sixteen b) { return {_mm512_add_epi32(a.lanes, b.lanes)}; }
inline Sixteen minus(Sixteen a, Sixteen b) { return {_mm512_sub_epi32(a.lanes, b.lanes)}; }
inline Sixteen times(Sixteen a, Sixteen b) { return {_mm512_mullo_epi32(a.lanes, b.lanes)}; }
inline Sixteen times_sixteen(Sixteen a) { return {_mm512_slli_epi32(a.lanes, 4)}; }
inline Floats no_floats() { return {_mm512_setzero_ps()}; }
inline Floats load_floats(const float* source) { return {_mm512_loadu_ps(source)}; }
inline void store_floats(float* target, Floats values) { _mm512_storeu_ps(target, values.lanes); }
// As `narrow` of numbers.h does.
inline void store_narrow(bf16* target, Floats values) {
    const __m512i bits = _mm512_castps_si512(values.lanes), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 none = _mm512_cmp_ps_mask(values.lanes, values.lanes, _CMP_UNORD_Q);
    const __m512i narrow = _mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16), none, _mm512_set1_epi32(0x7fc0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtepi32_epi16(narrow));
}
inline Floats times(Floats a, Floats b) { return {_mm512_mul_ps(a.lanes, b.lanes)}; }
// sum + number * factor, rounded twice: torch has no fused form.
inline Floats add_scaled(Floats sum, Sixteen number, float factor) {
    return {_mm512_add_ps(sum.lanes, _mm512_mul_ps(_mm512_cvtepi32_ps(number.lanes), _mm512_set1_ps(factor)))};
}
#if defined(__AVX512VNNI__)
inline Sixteen add_any(Sixteen sum, Codes weights, int32_t inputs) {
    // Of the intrinsic, gcc 12 copies the sums from register to register and back.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.lanes) : "v"(weights), "v"(_mm512_set1_epi32(inputs)));
    return sum;
}
inline Sixteen add_small(Sixteen sum, Codes weights, int32_t inputs) { return add_any(sum, weights, inputs); }
#else
inline Sixteen add_small(Sixteen sum, Codes weights, int32_t inputs) {
    const __m512i pairs = _mm512_maddubs_epi16(weights, _mm512_set1_epi32(inputs));
    return {_mm512_add_epi32(sum.lanes, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
#endif

#elif defined(__AVX2__)
struct Sixteen {
    __m256i first, second;
};
struct Floats {
    __m256 first, second;
};
typedef Sixteen Codes;

inline __m256i load_half(const uint8_t* source) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)); }
inline Codes load_codes(const uint8_t* source) { return {load_half(source), load_half(source + 32)}; }
inline Codes low_half(Codes codes) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(codes.first, mask), _mm256_and_si256(codes.second, mask)};
}
inline Codes high_half(Codes codes) {
    return low_half(Codes{_mm256_srli_epi16(codes.first, 4), _mm256_srli_epi16(codes.second, 4)});
}
inline Sixteen widen_bytes(const uint8_t* source) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
inline Sixteen all(int32_t value) { return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}; }
inline Sixteen plus(Sixteen a, Sixteen b) {
    return {_mm256_add_epi32(a.first, b.first), _mm256_add_epi32(a.second, b.second)};
}
inline Sixteen minus(Sixteen a, Sixteen b) {
    return {_mm256_sub_epi32(a.first, b.first), _mm256_sub_epi32(a.second, b.second)};
}
inline Sixteen times(Sixteen a, Sixteen b) {
    return {_mm256_mullo_epi32(a.first, b.first), _mm256_mullo_epi32(a.second, b.second)};
}
inline Sixteen times_sixteen(Sixteen a) { return {_mm256_slli_epi32(a.first, 4), _mm256_slli_epi32(a.second, 4)}; }
inline Floats no_floats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats load_floats(const float* source) { return {_mm256_loadu_ps(source), _mm256_loadu_ps(source + 8)}; }
inline void store_floats(float* target, Floats values) {
    _mm256_storeu_ps(target, values.first);
    _mm256_storeu_ps(target + 8, values.second);
}
inline Floats times(Floats a, Floats b) {
    return {_mm256_mul_ps(a.first, b.first), _mm256_mul_ps(a.second, b.second)};
}
inline Floats add_scaled(Floats sum, Sixteen number, float factor) {
    const __m256 factors = _mm256_set1_ps(factor);
    return {_mm256_add_ps(sum.first, _mm256_mul_ps(_mm256_cvtepi32_ps(number.first), factors)),
            _mm256_add_ps(sum.second, _mm256_mul_ps(_mm256_cvtepi32_ps(number.second), factors))};
}
inline Sixteen add_small(Sixteen sum, Codes weights, int32_t inputs) {
    const __m256i wide = _mm256_set1_epi32(inputs), ones = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(sum.first, _mm256_madd_epi16(_mm256_maddubs_epi16(weights.first, wide), ones)),
            _mm256_add_epi32(sum.second, _mm256_madd_epi16(_mm256_maddubs_epi16(weights.second, wide), ones))};
}

#else
struct Sixteen {
    int32_t lanes[BLOCK_OUTPUTS];
};
struct Floats {
    float lanes[BLOCK_OUTPUTS];
};
struct Codes {
    uint8_t bytes[4 * BLOCK_OUTPUTS];
};

// One statement for each lane; a compiler makes vectors of it where the machine has some.
#define PHI4_EACH(Type, statement)                     \
    Type result;                                       \
    for (int n = 0; n < BLOCK_OUTPUTS; ++n) statement; \
    return result

inline Codes load_codes(const uint8_t* source) {
    Codes codes;
    std::memcpy(&codes, source, sizeof codes);
    return codes;
}
inline Codes low_half(Codes codes) {
    for (uint8_t& byte : codes.bytes) byte &= 15;
    return codes;
}
inline Codes high_half(Codes codes) {
    for (uint8_t& byte : codes.bytes) byte >>= 4;
    return codes;
}
inline Sixteen widen_bytes(const uint8_t* source) { PHI4_EACH(Sixteen, result.lanes[n] = source[n]); }
inline Sixteen all(int32_t value) { PHI4_EACH(Sixteen, result.lanes[n] = value); }
inline Sixteen plus(Sixteen a, Sixteen b) { PHI4_EACH(Sixteen, result.lanes[n] = a.lanes[n] + b.lanes[n]); }
inline Sixteen minus(Sixteen a, Sixteen b) { PHI4_EACH(Sixteen, result.lanes[n] = a.lanes[n] - b.lanes[n]); }
inline Sixteen times(Sixteen a, Sixteen b) { PHI4_EACH(Sixteen, result.lanes[n] = a.lanes[n] * b.lanes[n]); }
inline Sixteen times_sixteen(Sixteen a) { PHI4_EACH(Sixteen, result.lanes[n] = a.lanes[n] * 16); }
inline Floats no_floats() { PHI4_EACH(Floats, result.lanes[n] = 0.0f); }
inline Floats load_floats(const float* source) { PHI4_EACH(Floats, result.lanes[n] = source[n]); }
inline void store_floats(float* target, Floats values) { std::memcpy(target, values.lanes, sizeof values); }
inline Floats times(Floats a, Floats b) { PHI4_EACH(Floats, result.lanes[n] = a.lanes[n] * b.lanes[n]); }
inline Floats add_scaled(Floats sum, Sixteen number, float factor) {
    PHI4_EACH(Floats, result.lanes[n] = sum.lanes[n] + static_cast<float>(number.lanes[n]) * factor);
}
inline Sixteen add_small(Sixteen sum, Codes weights, int32_t inputs) {
    int8_t input[4];
    std::memcpy(input, &inputs, sizeof input);
    PHI4_EACH(Sixteen, result.lanes[n] = sum.lanes[n] + weights.bytes[4 * n] * input[0] +
                                         weights.bytes[4 * n + 1] * input[1] + weights.bytes[4 * n + 2] * input[2] +
                                         weights.bytes[4 * n + 3] * input[3]);
}
#undef PHI4_EACH
#endif

#if !defined(__AVX512F__)
inline void store_narrow(bf16* target, Floats values) {
    float wide[BLOCK_OUTPUTS];
    store_floats(wide, values);
    for (int n = 0; n < BLOCK_OUTPUTS; ++n) narrow(wide[n], target + n);
}
#endif
