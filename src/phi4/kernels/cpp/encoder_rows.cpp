// What stands between the products of an encoder: the norm, and the convolutions that leave channels apart.

#include <cmath>

#include "encoder.h"
#include "packed.h"
#include "team.h"

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
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(variance + own.eps));
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

// One frame of the results, 16 channels at a time: their weights stay in registers while the mels pass.
void downsample_frame(const Downsampling& own, int64_t clip, int64_t frame) {
    const int64_t in_channels = own.from_one ? 1 : own.channels;
    const int64_t out_frames = (own.frames + 1) / 2, out_mels = (own.mels + 1) / 2;
    const auto* rows = static_cast<const uint16_t*>(own.rows) + clip * own.frames * own.mels * in_channels;
    auto* results = static_cast<uint16_t*>(own.results) + (clip * out_frames + frame) * out_mels * own.channels;
    for (int64_t n = 0; n < own.channels; n += LANES) {
        const int64_t rest = own.channels - n;
        const __m512 bias = _mm512_maskz_loadu_ps(first_lanes(rest), own.bias + n);
        __m512 weights[9];
        for (int k = 0; k < 9; ++k)
            weights[k] = _mm512_maskz_loadu_ps(first_lanes(rest), own.weight + k * own.channels + n);
        for (int64_t mel = 0; mel < out_mels; ++mel) {
            __m512 sum = bias;
            for (int k = 0; k < 9; ++k) {
                const int64_t y = 2 * frame + k / 3 - 1, x = 2 * mel + k % 3 - 1;
                if (y < 0 || y >= own.frames || x < 0 || x >= own.mels) continue;
                const uint16_t* source = rows + (y * own.mels + x) * in_channels;
                const __m512 value = own.from_one
                                         ? _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int32_t>(*source) << 16))
                                         : load_some(source + n, rest);
                sum = _mm512_fmadd_ps(value, weights[k], sum);
            }
            if (own.relu) sum = _mm512_max_ps(_mm512_setzero_ps(), sum);
            store_some(results + mel * own.channels + n, sum, rest);
        }
    }
}

}  // namespace

void layer_norm(const LayerNorm& norm, int threads) {
    share(threads, norm.num_rows, [&](int64_t row) {
        norm_row(
            norm, static_cast<const uint16_t*>(norm.rows) + row * norm.width,
            static_cast<uint16_t*>(norm.results) + row * norm.width);
    });
}

void convolve(const CausalConvolution& convolution, int threads) {
    share(threads, convolution.sequences * convolution.length, [&](int64_t place) {
        convolve_position(convolution, place, place % convolution.length);
    });
}

void downsample(const Downsampling& downsampling, int threads) {
    const int64_t frames = (downsampling.frames + 1) / 2;
    share(threads, downsampling.clips * frames, [&](int64_t item) {
        downsample_frame(downsampling, item / frames, item % frames);
    });
}

}  // namespace phi4
