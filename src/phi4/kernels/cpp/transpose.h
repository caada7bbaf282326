// Included into a namespace, behind <immintrin.h>, by sources that are compiled for AVX-512.

// Transposes 16 x 16 words of 32 bits in place.
inline void transpose(__m512i (&rows)[16]) {
    __m512i pairs[16];
    for (int n = 0; n < 16; n += 2) {
        pairs[n] = _mm512_unpacklo_epi32(rows[n], rows[n + 1]);
        pairs[n + 1] = _mm512_unpackhi_epi32(rows[n], rows[n + 1]);
    }
    for (int n = 0; n < 16; n += 4) {
        rows[n] = _mm512_unpacklo_epi64(pairs[n], pairs[n + 2]);
        rows[n + 1] = _mm512_unpackhi_epi64(pairs[n], pairs[n + 2]);
        rows[n + 2] = _mm512_unpacklo_epi64(pairs[n + 1], pairs[n + 3]);
        rows[n + 3] = _mm512_unpackhi_epi64(pairs[n + 1], pairs[n + 3]);
    }
    for (int n = 0; n < 4; ++n) {
        const __m512i even = _mm512_shuffle_i32x4(rows[n], rows[n + 4], 0x88);
        const __m512i odd = _mm512_shuffle_i32x4(rows[n], rows[n + 4], 0xdd);
        const __m512i even_high = _mm512_shuffle_i32x4(rows[n + 8], rows[n + 12], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(rows[n + 8], rows[n + 12], 0xdd);
        rows[n] = _mm512_shuffle_i32x4(even, even_high, 0x88);
        rows[n + 4] = _mm512_shuffle_i32x4(odd, odd_high, 0x88);
        rows[n + 8] = _mm512_shuffle_i32x4(even, even_high, 0xdd);
        rows[n + 12] = _mm512_shuffle_i32x4(odd, odd_high, 0xdd);
    }
}
