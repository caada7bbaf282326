// A decoder layer in one call, and the attention in it. For what calls kernels, not for kernels.
#pragma once

#include <vector>

#include "adapted.h"
#include "conversations.h"
#include "elementwise.h"
#include "linear.h"

namespace phi4 {

// How a level of instructions does what a layer consists of.
struct LayerKernels {
    QuantisedKernels products;
    decltype(&plain::multiply) multiply;
    decltype(&plain::rms_norm) rms_norm;
    decltype(&plain::rotate) rotate;
    decltype(&plain::swiglu) swiglu;
    decltype(&plain::add) add;
    decltype(&plain::scale) scale;
    decltype(&plain::round_head) round_head;
    decltype(&plain::attend) attend;  // over a cache of the kind that there is
};

// Where a layer's keys and values are kept, [kv_heads, slots, head_dim].
struct CachedLayer {
    void* keys;
    void* values;
    float* key_scales;  // of both where they are bytes; else null
    float* value_scales;
    int64_t slots;
};

struct HeadSizes {
    int heads;
    int kv_heads;
    int head_dim;
};

// What one layer adds to a step: rows of queries, keys and values, each so many values apart.
struct NewHeads {
    const void* queries;
    const void* keys;
    const void* values;
    int64_t query_stride;
    int64_t key_stride;
    int64_t value_stride;
};

// Stores new keys and values, and lets each new token attend: `outputs` are [tokens, heads * head_dim].
void store_and_attend(
    const LayerKernels& kernels, const Conversations& conversations, const NewHeads& news, const CachedLayer& cache,
    const HeadSizes& sizes, bool bf16, void* outputs, int threads);

// [outputs, inputs] of the type that rows are, without gaps.
struct FullMatrix {
    const void* values;
    int64_t outputs;
};

// Of such matrices: scale * up(down(row)) is added to the rows start <= row < stop, each part rounded by itself.
struct FullLowRank {
    int64_t start;
    int64_t stop;
    FullMatrix down;
    FullMatrix up;
    float scale;
};

// A linear with what LoRAs add to it, those of 8 bits first; they are for a quantised weight only.
struct LayerLinear {
    QuantisedMatrix quantised;  // its codes are null where the weight is not
    FullMatrix full;            // then it is this one
    std::vector<LowRank> quantised_added;
    std::vector<FullLowRank> full_added;

    bool is_quantised() const { return quantised.codes != nullptr; }
    int64_t outputs() const { return is_quantised() ? quantised.blocks * BLOCK_OUTPUTS : full.outputs; }
};

struct DecoderLayer {
    const void* hidden;  // [tokens, hidden], `hidden_stride` values apart
    int64_t hidden_stride;
    void* results;  // [tokens, hidden], without gaps
    int64_t tokens;
    bool bf16;  // what all values are; else float
    const void* attention_norm;  // [hidden]
    const void* mlp_norm;
    float eps;
    LayerLinear qkv, o, gate_up, down;
    const void* cos;  // [tokens, half]
    const void* sin;
    int64_t half;
    CachedLayer cache;
    HeadSizes sizes;
};

void run_decoder_layer(
    const LayerKernels& kernels, const Conversations& conversations, const DecoderLayer& layer, int threads);

}  // namespace phi4
