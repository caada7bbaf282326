// Heads of keys and values as bytes. Compiled once for each level of instructions, into a namespace of its own.
#pragma once

#include <cstdint>

namespace phi4 {

// Neighbouring values of a key that share a scale; one of 16 values is one group, and so is every value.
constexpr int GROUP_VALUES = 32;

constexpr int group_of_key(int head_dim) { return head_dim < GROUP_VALUES ? head_dim : GROUP_VALUES; }

#define PHI4_DECLARE(level)                                                                                \
    namespace level {                                                                                      \
    void round_head(const void* source, bool bf16, int head_dim, int group, int8_t* values, float* scales); \
    }
PHI4_DECLARE(plain)
PHI4_DECLARE(avx2)
PHI4_DECLARE(avx512)
#undef PHI4_DECLARE

}  // namespace phi4
