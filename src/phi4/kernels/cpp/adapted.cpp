// Rows are rounded once for the weight and for a LoRA that all of them use.

#include "adapted.h"

namespace phi4 {
namespace {

void project(
    const QuantisedKernels& kernels, const ByteRows& rows, const QuantisedMatrix& weight, const Ending* ending,
    void* results, bool bf16, int threads) {
    kernels.multiply({rows, weight.codes, weight.steps, weight.scales, results, weight.blocks, bf16, ending}, threads);
}

// `own` are the rounded rows of the LoRA, `sums` the results of the first of them.
void add_low_rank(
    const QuantisedKernels& kernels, const ByteRows& own, const LowRank& lora, void* sums, bool bf16, int threads) {
    const int64_t rank = lora.down.blocks * BLOCK_OUTPUTS;
    const Room low(own.num_rows * rank * (bf16 ? 2 : 4));
    const Ending scaled{nullptr, nullptr, nullptr, lora.scale, Activation::none};
    project(kernels, own, lora.down, &scaled, low.get(), bf16, threads);
    const RoundedRows narrow(own.num_rows, rank / GROUP_INPUTS);
    kernels.round(low.get(), rank, bf16, narrow.rows, threads);
    const Ending added{nullptr, nullptr, sums, 1.0f, Activation::none};
    project(kernels, narrow.rows, lora.up, &added, sums, bf16, threads);
}

}  // namespace

void multiply_adapted(
    const QuantisedKernels& kernels, const WideRows& rows, const ByteRows& rounded, const QuantisedMatrix& weight,
    const std::vector<LowRank>& added, void* results, int threads) {
    kernels.round(rows.values, rows.stride, rows.bf16, rounded, threads);
    project(kernels, rounded, weight, nullptr, results, rows.bf16, threads);
    const int64_t size = rows.bf16 ? 2 : 4;
    for (const LowRank& lora : added) {
        auto* sums = static_cast<uint8_t*>(results) + lora.start * weight.blocks * BLOCK_OUTPUTS * size;
        if (lora.start == 0 && lora.stop == rounded.num_rows) {
            add_low_rank(kernels, rounded, lora, sums, rows.bf16, threads);
            continue;
        }
        // Rounded rows stand in tiles with their neighbours, so that a part of them has to be rounded anew.
        const RoundedRows part(lora.stop - lora.start, rounded.groups);
        const auto* first = static_cast<const uint8_t*>(rows.values) + lora.start * rows.stride * size;
        kernels.round(first, rows.stride, rows.bf16, part.rows, threads);
        add_low_rank(kernels, part.rows, lora, sums, rows.bf16, threads);
    }
}

}  // namespace phi4
