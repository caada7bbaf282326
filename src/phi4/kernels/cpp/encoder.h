// What the encoders of pictures and sounds are made of, for bf16 on processors with its dot product. Everything is summed
// in fp32 and rounded once; what a row becomes depends on its own sequence alone.
#pragma once

#include <cstdint>

#include "activation.h"

namespace phi4 {

// results = scale * activation(rows * weights^T + bias) + residual. Where gated, weights hold twice as many outputs, and
// results = (values + bias) * activation(gates + bias) with the values in the first half.
struct Projection {
    const void* rows;      // [num_rows, inputs], `row_stride` values apart
    const void* weights;   // [outputs, inputs] or gated [2 * outputs, inputs], without gaps
    const float* bias;     // [outputs] or gated [2 * outputs]
    const void* residual;  // [num_rows, outputs], without gaps, or null
    void* results;         // [num_rows, outputs], without gaps
    int64_t row_stride;
    int64_t num_rows;
    int64_t outputs;
    int64_t inputs;  // even
    float scale;
    Activation activation;
    bool gated;
};

// Attention of whole sequences in which every position sees every other.
struct FullAttention {
    const void* queries;  // [sequences, length, heads, head_dim], positions `row_stride` values apart; the same for both
    const void* keys;
    const void* values;
    const void* bias;  // added to the scores, or null: its strides may be 0, keys are neighbours
    void* results;     // [sequences, length, heads, head_dim], without gaps
    int64_t row_stride;
    int64_t bias_sequence_stride;
    int64_t bias_head_stride;
    int64_t bias_query_stride;
    int64_t sequences;
    int64_t length;
    int64_t heads;
    int64_t head_dim;  // even
};

// Rows of [num_rows, width] without gaps, minus their mean, over their deviation, times weight plus bias.
struct LayerNorm {
    const void* rows;
    const void* weight;
    const void* bias;
    void* results;
    int64_t num_rows;
    int64_t width;
    float eps;
};

// Each channel of [sequences, length, width], mixed with the kernel_size - 1 positions before it.
struct CausalConvolution {
    const void* rows;
    const float* weight;  // [kernel_size, width]
    const float* bias;    // [width]
    void* results;
    int64_t sequences;
    int64_t length;
    int64_t width;
    int64_t kernel_size;
};

// Halves the frames and mels of [clips, frames, mels, channels], rounding up: 3 x 3 neighbours with a margin of zeros. Each
// channel is mixed with itself, or all outputs come from the only channel that there is.
struct Downsampling {
    const void* rows;
    const float* weight;  // [3, 3, channels of the results]
    const float* bias;
    void* results;
    int64_t clips;
    int64_t frames;
    int64_t mels;
    int64_t channels;  // of the results
    bool from_one;     // whether `rows` has a single channel
    bool relu;
};

// Products have two levels, the rest has one.
#define PHI4_DECLARE(level)                                  \
    namespace level {                                        \
    void project(const Projection& projection, int threads); \
    }
PHI4_DECLARE(avx512_bf16)
PHI4_DECLARE(amx)
#undef PHI4_DECLARE

void attend_fully(const FullAttention& attention, int threads);
void layer_norm(const LayerNorm& norm, int threads);
void convolve(const CausalConvolution& convolution, int threads);
void downsample(const Downsampling& downsampling, int threads);

}  // namespace phi4
