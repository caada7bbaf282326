// What stands between the products of a layer. Compiled once for each level of instructions.
#pragma once

#include <cstdint>

namespace phi4 {

// Rows of one matrix and where the results go; both hold bf16, or float.
struct Rows {
    const void* input;
    void* output;
    int64_t num_rows;
    int64_t width;         // values of a row of `output`
    int64_t input_stride;  // values from one row of `input` to the next
    bool bf16;
};

// The rotation of the leading dimensions of all heads of all tokens, in place; cos and sin are [tokens, half].
struct Rotation {
    void* heads;  // [tokens, num_heads, head_dim], tokens `token_stride` values apart
    const void* cos;
    const void* sin;
    int64_t tokens;
    int64_t token_stride;
    int64_t num_heads;
    int64_t head_dim;
    int64_t half;
    bool bf16;
};

// add: `more` is [num_rows, width] without gaps.
#define PHI4_DECLARE(level)                                                              \
    namespace level {                                                                    \
    void rms_norm(const Rows& rows, const void* weight, float eps, int threads);         \
    void swiglu(const Rows& rows, int threads);                                          \
    void rotate(const Rotation& rotation, int threads);                                  \
    void add(const Rows& rows, const void* more, int threads);                           \
    void scale(void* values, int64_t count, float factor, bool bf16);                    \
    }
PHI4_DECLARE(plain)
PHI4_DECLARE(avx2)
PHI4_DECLARE(avx512)
#undef PHI4_DECLARE

}  // namespace phi4
