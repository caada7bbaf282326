// The product of packed rows with a quantised weight matrix, and what LoRAs add to some of them.
#pragma once

#include <vector>

#include "allocate.h"
#include "quantised.h"

namespace phi4 {

// A matrix as `QuantisedProduct` has it.
struct QuantisedMatrix {
    const uint8_t* codes;
    const uint8_t* steps;
    const float* scales;
    int64_t blocks;
};

// scale * up(down(row)) is added to the rows start <= row < stop.
struct LowRank {
    int64_t start;
    int64_t stop;
    QuantisedMatrix down;
    QuantisedMatrix up;
    float scale;
};

// Rows as a layer gets them, before they are rounded.
struct WideRows {
    const void* values;
    int64_t stride;  // in values
    bool bf16;       // what they are, and the results; else float
};

// How a level of instructions rounds and multiplies.
struct QuantisedKernels {
    decltype(&plain::quantise_rows) round;
    decltype(&plain::multiply_quantised) multiply;
};

// Room for rounded rows.
class RoundedRows {
public:
    RoundedRows(int64_t num_rows, int64_t groups)
        : memory_(num_rows * (groups * (GROUP_INPUTS + sizeof(int32_t)) + spans_of(groups) * sizeof(float))) {
        auto* values = reinterpret_cast<int8_t*>(memory_.get());
        auto* scales = reinterpret_cast<float*>(values + num_rows * groups * GROUP_INPUTS);
        auto* offsets = reinterpret_cast<int32_t*>(scales + num_rows * spans_of(groups));
        rows = {values, scales, offsets, num_rows, groups};
    }

    ByteRows rows;

private:
    Room memory_;
};

// `rounded` is room for the rows, `results` [num_rows, 16 * weight.blocks] without gaps.
void multiply_adapted(
    const QuantisedKernels& kernels, const WideRows& rows, const ByteRows& rounded, const QuantisedMatrix& weight,
    const std::vector<LowRank>& added, void* results, int threads);

}  // namespace phi4
