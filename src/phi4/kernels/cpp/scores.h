// What the choice of a token asks of scores. Compiled once for each level of instructions.
#pragma once

#include <cstdint>

namespace phi4 {

// Rows of scores, and room for what is found in each of them.
struct Scores {
    const void* values;
    int64_t stride;   // values from one row to the next
    int64_t width;    // values of a row: at least 1, and fewer than 2^31
    int64_t* places;  // of each row's first highest score; any place of the row where not all are finite
    bool* finite;     // whether all of a row's scores are
    bool bf16;        // what the values are; else float
};

#define PHI4_DECLARE(level)                                                      \
    namespace level {                                                            \
    void best_scores(const Scores& scores, int64_t num_rows, int threads);       \
    }
PHI4_DECLARE(plain)
PHI4_DECLARE(avx2)
PHI4_DECLARE(avx512)
#undef PHI4_DECLARE

}  // namespace phi4
