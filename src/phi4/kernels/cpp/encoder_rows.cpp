// What stands between the products of an encoder: the norm, and the short convolution over time.

#include <cmath>

#include "encoder.h"
#include "packed.h"

namespace phi4 {
namespace {

void norm_row(const LayerNorm& own, const uint16_t* row, uint16_t* result) {
    __m512 sums = _mm512_setzero_ps();
    for (int64_t n = 0; n < own.width; n += LANES) sums = _mm512_add_ps(sums, load_some(row + n, own.width - n));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sums) / static_cast<float>(own.width));
    __m512 squares = _mm512_setzero_ps();
    for (int64_t n = 0; n < own.width; n += LANES) {
        const __m512 off =
            _mm512_maskz_sub_ps(first_lanes(own.width - n), load_some(row + n, own.width - n), mean);
        squares = _mm512_fmadd_ps(off, off, squares);
    }
    const float variance = _mm512_reduce_add_ps(squares) / static_cast<float>(own.width);
    const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(variance + own.eps));
    for (int64_t n = 0; n < own.width; n += LANES) {
        const int64_t rest = own.width - n;
        const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(load_some(row + n, rest), mean), scale);
        const __m512 weight = load_some(static_cast<const uint16_t*>(own.weight) + n, rest);
        store_some(
            result + n, _mm512_fmadd_ps(normal, weight, load_some(static_cast<const uint16_t*>(own.bias) + n, rest)),
            rest);
    }
}

// One position: the products of its own row and of those before it that the sequence has.
void convolve_position(const CausalConvolution& own, int64_t place, int64_t position) {
    for (int64_t n = 0; n < own.width; n += LANES) {
        const int64_t rest = own.width - n;
        __m512 sum = _mm512_maskz_loadu_ps(first_lanes(rest), own.bias + n);
        for (int64_t k = 0; k < own.kernel_size; ++k) {
            const int64_t back = own.kernel_size - 1 - k;
            if (back > position) continue;
            const __m512 values = load_some(static_cast<const uint16_t*>(own.rows) + (place - back) * own.width + n, rest);
            sum = _mm512_fmadd_ps(
                values, _mm512_maskz_loadu_ps(first_lanes(rest), own.weight + k * own.width + n), sum);
        }
        store_some(static_cast<uint16_t*>(own.results) + place * own.width + n, sum, rest);
    }
}

}  // namespace

void layer_norm(const LayerNorm& norm, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < norm.num_rows; ++row)
        norm_row(
            norm, static_cast<const uint16_t*>(norm.rows) + row * norm.width,
            static_cast<uint16_t*>(norm.results) + row * norm.width);
}

void convolve(const CausalConvolution& convolution, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t place = 0; place < convolution.sequences * convolution.length; ++place)
        convolve_position(convolution, place, place % convolution.length);
}

}  // namespace phi4
