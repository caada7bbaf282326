// Attention over the paged cache. Compiled once for each level of instructions, into a namespace of its own.
#pragma once

#include <cstdint>

namespace phi4 {

// Neighbouring slots of the cache that hold neighbouring tokens of one conversation.
struct Run {
    int64_t position;  // of the first token in its conversation
    int64_t slot;      // that holds the first token
    int64_t count;     // of tokens
};

// What a step adds to one conversation.
struct Segment {
    int64_t row;     // of its first new token among the packed ones
    int64_t length;  // new tokens
    int64_t cached;  // tokens before them
    const Run* runs;
    int64_t num_runs;
};

// The values of one layer. Rows of queries are `query_stride` apart, rows of outputs `heads * head_dim`.
struct Layer {
    const void* queries;  // [tokens, heads, head_dim]
    const void* keys;     // the cache's, [kv_heads, slots, head_dim]
    const void* values;   // [kv_heads, slots, head_dim]
    // Of keys and values that are bytes; null where they are numbers like the queries.
    const float* key_scales;    // [kv_heads, slots, groups]
    const float* value_scales;  // [kv_heads, slots]
    void* outputs;  // [tokens, heads, head_dim]
    int64_t query_stride;
    int64_t slots;
    int heads;
    int kv_heads;
    int head_dim;
    bool bf16;  // what queries and outputs hold; else float
};

// The sizes of heads that there are instances for.
#define PHI4_FOR_EACH_HEAD_DIM(use) use(16) use(32) use(64) use(96) use(128)

#define PHI4_DECLARE(level)                                                                        \
    namespace level {                                                                              \
    void attend(const Layer& layer, const Segment* segments, int64_t num_segments, int threads);   \
    }
PHI4_DECLARE(plain)
PHI4_DECLARE(avx2)
PHI4_DECLARE(avx512)
#undef PHI4_DECLARE

// The same over a cache of bytes, in whole numbers; and, where there are tiles, over one of bf16.
namespace avx512_vnni {
void attend_bytes(const Layer& layer, const Segment* segments, int64_t num_segments, int threads);
}
namespace amx {
void attend_bytes(const Layer& layer, const Segment* segments, int64_t num_segments, int threads);
void attend_halves(const Layer& layer, const Segment* segments, int64_t num_segments, int threads);
}
// The same over a cache of bf16, for queries of bf16, in products of bf16.
namespace avx512_bf16 {
void attend_halves(const Layer& layer, const Segment* segments, int64_t num_segments, int threads);
}

}  // namespace phi4
