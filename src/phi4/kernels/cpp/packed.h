// Products with a packed matrix: vectors of 16 outputs, and in each lane a pair of neighbouring inputs. A result is summed
// over pairs of inputs in their order, so that neither the other rows nor the threads change a bit.
//
// Only for sources that are compiled for AVX-512 with bf16.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace phi4 {
namespace {

constexpr int LANES = 16;
// 24 sums are in registers, beside four vectors of the packed matrix.
constexpr int TILE_ROWS = 6;
constexpr int TILE_VECTORS = 4;

inline __m512bh as_pairs(__m512i bits) { return reinterpret_cast<__m512bh>(bits); }

inline __m512 widen(__m256i bf16) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16)); }

inline __mmask16 first_lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// Loads up to 16 bf16 values; the lanes behind them are 0 and nothing is read there.
inline __m512 load_some(const uint16_t* source, int64_t count) {
    return widen(_mm256_maskz_loadu_epi16(first_lanes(count), source));
}

inline void store_some(uint16_t* target, __m512 values, int64_t count) {
    _mm256_mask_storeu_epi16(target, first_lanes(count), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}

#include "transpose.h"

// Packs 16 rows of a matrix, `row_stride` values apart, as one vector of outputs for each pair of inputs; vectors go
// `vector_stride` values apart. Rows from `count` on are zeros, and so are inputs from `inputs` on.
inline void pack_rows(
    const uint16_t* rows, int64_t row_stride, int64_t count, int64_t inputs, uint16_t* packed, int64_t vector_stride) {
    for (int64_t input = 0; input < inputs; input += 2 * LANES) {
        const __mmask16 inside = first_lanes((inputs - input) / 2);
        __m512i words[LANES];
        for (int64_t n = 0; n < LANES; ++n)
            words[n] = n < count ? _mm512_maskz_loadu_epi32(inside, rows + n * row_stride + input) : _mm512_setzero_si512();
        transpose(words);
        for (int64_t n = 0; n < LANES && input / 2 + n < inputs / 2; ++n)
            _mm512_storeu_si512(packed + (input / 2 + n) * vector_stride, words[n]);
    }
}

// Sums of ROWS x VECTORS results over `pairs` pairs of inputs. Rows are `row_stride` values apart, the packed vectors of
// one pair are neighbours, those of the next pair `vector_stride` values further.
template <int ROWS, int VECTORS>
inline __attribute__((always_inline)) void sum_tile(
    const uint16_t* rows, int64_t row_stride, const uint16_t* packed, int64_t vector_stride, int64_t pairs,
    __m512 (&sums)[ROWS][VECTORS]) {
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) sums[r][v] = _mm512_setzero_ps();
    for (int64_t pair = 0; pair < pairs; ++pair) {
        __m512bh columns[VECTORS];
        for (int v = 0; v < VECTORS; ++v)
            columns[v] = as_pairs(_mm512_loadu_si512(packed + pair * vector_stride + v * 2 * LANES));
        for (int r = 0; r < ROWS; ++r) {
            int32_t word;
            std::memcpy(&word, rows + r * row_stride + 2 * pair, sizeof word);
            const __m512bh row = as_pairs(_mm512_set1_epi32(word));
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], row, columns[v]);
        }
    }
}

// Calls `use` with ROWS as a constant, for tiles that are not full.
template <typename Use>
inline void with_rows(int64_t rows, const Use& use) {
    switch (rows) {
        case 6: return use.template tile<6>();
        case 5: return use.template tile<5>();
        case 4: return use.template tile<4>();
        case 3: return use.template tile<3>();
        case 2: return use.template tile<2>();
        case 1: return use.template tile<1>();
    }
}

// exp(x) with a relative error below 3e-7 for x up to 88, and 0 below -87; NaN stays NaN.
inline __m512 exponential(__m512 x) {
    const __mmask16 lives = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(lives, p, n);
}

}  // namespace
}  // namespace phi4
