// The product of packed rows with a weight matrix of 4 or 8 bits. Compiled once for each level of instructions.
#pragma once

#include <cstdint>

#include "activation.h"

namespace phi4 {

// Inputs that share a step of the weights; outputs that stand beside each other in memory.
constexpr int GROUP_INPUTS = 32;
constexpr int BLOCK_OUTPUTS = 16;
// Groups that share a scale of the rows; the last ones of a row may be fewer.
constexpr int64_t SPAN_GROUPS = 4;
constexpr int SPAN_INPUTS = SPAN_GROUPS * GROUP_INPUTS;

constexpr int64_t spans_of(int64_t groups) { return (groups + SPAN_GROUPS - 1) / SPAN_GROUPS; }

// Rows as numbers of 8 bits, some rows together, as many as a level multiplies at a time: of those, the same group of all
// rows stands before the next one. The last rows are fewer.
struct ByteRows {
    int8_t* values;    // [tiles, groups, rows of a tile, 32]
    float* scales;     // of each span, [tiles, spans, rows of a tile]
    int32_t* offsets;  // -128 times the sum of each group's numbers, [tiles, groups, rows of a tile]
    int64_t num_rows;
    int64_t groups;
    int64_t missing = 0;  // inputs that the last group lacks in the rows; they count as zeros
};

// What follows a product in an encoder: scale * activation(product + bias) * factors + residual.
struct Ending {
    const float* bias;     // [16 * blocks], or null
    const void* factors;   // of the results' type, [num_rows, 16 * blocks] without gaps, or null
    const void* residual;  // likewise
    float scale;
    Activation activation;
};

struct QuantisedProduct {
    ByteRows rows;
    const uint8_t* codes;  // [blocks, groups, quads, 16 outputs, 4 inputs]; of 4 bits, two quads share their bytes
    const uint8_t* steps;  // [blocks, groups, 2, 16]: the step, then the lowest value; null for codes of 8 bits
    const float* scales;   // [blocks, 16]
    void* results;         // [num_rows, 16 * blocks], without gaps
    int64_t blocks;
    bool bf16;  // what the results are; else float
    const Ending* ending = nullptr;  // null for the bare product
};

// largest_value: what the largest code of 4 bits stands for anywhere, of steps [places, 2, 16]. Above 255 it is no byte,
// and the levels would not agree.
#define PHI4_DECLARE(level)                                                                                    \
    namespace level {                                                                                          \
    void quantise_rows(const void* rows, int64_t row_stride, bool bf16, const ByteRows& quantised, int threads); \
    void multiply_quantised(const QuantisedProduct& product, int threads);                                     \
    int largest_value(const uint8_t* steps, int64_t places);                                                   \
    }
PHI4_DECLARE(plain)
PHI4_DECLARE(avx2)
PHI4_DECLARE(avx512)
PHI4_DECLARE(avx512_vnni)
PHI4_DECLARE(amx)
#undef PHI4_DECLARE

}  // namespace phi4
