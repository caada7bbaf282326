// The product of packed rows with a weight matrix. Compiled once for each level of instructions.
#pragma once

#include <cstdint>

namespace phi4 {

struct Product {
    const void* rows;     // [num_rows, inputs], `row_stride` values apart
    const void* weights;  // [outputs, inputs], without gaps
    void* results;        // [num_rows, outputs], `result_stride` values apart
    int64_t row_stride;
    int64_t result_stride;
    int64_t num_rows;
    int64_t outputs;
    int64_t inputs;
    bool add;   // to what `results` holds, before rounding
    bool bf16;  // what all three hold; else float
};

#define PHI4_DECLARE(level)                                 \
    namespace level {                                       \
    void multiply(const Product& product, int threads);     \
    }
PHI4_DECLARE(plain)
PHI4_DECLARE(avx2)
PHI4_DECLARE(avx512)
PHI4_DECLARE(avx512_bf16)
PHI4_DECLARE(amx)
#undef PHI4_DECLARE

}  // namespace phi4
