// Causal attention of many conversations over one paged cache, in fp32 whatever the cache holds: numbers, or bytes with scales.
//
// Every query is computed by itself, in an order that its position alone decides: blocks of KEY_BLOCK keys counted from
// the beginning of its conversation, and within a product LANES partial sums that are added up as a tree (vectors.h).
// Neither the other rows of a step, nor how a prompt was cut, nor the number of threads changes a bit.

#include "attention.h"

#include "allocate.h"
#include "cached_bytes.h"
#include "team.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

// Tokens of a tile; with a group of heads each, their queries pass over a block of keys while it is in the cache.
constexpr int QUERY_TOKENS = 16;
// Queries that share the reading of a key: their sums are in registers.
constexpr int QUERIES_TOGETHER = 3;

#include "numbers.h"
#include "vectors.h"
#include "attention_tiles.h"

// What one query knows after the keys so far.
template <int HEAD_DIM>
struct Query {
    float query[HEAD_DIM];  // scaled
    float sum[HEAD_DIM];    // of values, weighted
    float weight;           // sum of the weights
    float highest;          // score
    int64_t history;        // keys that it sees
};

// By intrinsics where there are some: compilers take bytes apart one by one otherwise.
inline Vector load(const int8_t* source) {
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))));
#elif defined(__AVX2__)
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source))));
#else
    return Vector{static_cast<float>(source[0]), static_cast<float>(source[1]), static_cast<float>(source[2]),
                  static_cast<float>(source[3])};
#endif
}

// One head of one token in the cache; GROUP of its values share a scale, if they are bytes.
template <typename S, int GROUP>
struct Stored {
    const S* values;
    Vector load_from(int d) const { return load(values + d); }
};

template <int GROUP>
struct Stored<int8_t, GROUP> {
    const int8_t* values;
    const float* scales;
    Vector load_from(int d) const { return load(values + d) * scales[d / GROUP]; }
};

// The slots of one head, for all conversations.
template <int HEAD_DIM, typename S, int GROUP>
struct Storage {
    const S* values;
    const float* scales;
    Storage(const void* all_values, const float* all_scales, int64_t first_slot)
        : values(static_cast<const S*>(all_values) + first_slot * HEAD_DIM),
          scales(all_scales == nullptr ? nullptr : all_scales + first_slot * (HEAD_DIM / GROUP)) {}
    Stored<S, GROUP> at(int64_t slot) const {
        if constexpr (sizeof(S) == 1)
            return {values + slot * HEAD_DIM, scales + slot * (HEAD_DIM / GROUP)};
        else
            return {values + slot * HEAD_DIM};
    }
};

template <int HEAD_DIM, typename S>
using Keys = Storage<HEAD_DIM, S, group_of_key(HEAD_DIM)>;
template <int HEAD_DIM, typename S>
using Values = Storage<HEAD_DIM, S, HEAD_DIM>;

// Where the tokens of a block are stored. Behind the last of them stands that one again.
template <int HEAD_DIM, typename S>
struct Block {
    Stored<S, group_of_key(HEAD_DIM)> keys[KEY_BLOCK];
    Stored<S, HEAD_DIM> values[KEY_BLOCK];
};

// Finds the tokens first <= position < last of a conversation.
template <int HEAD_DIM, typename S>
void find_tokens(
    const Keys<HEAD_DIM, S>& keys, const Values<HEAD_DIM, S>& values, const Segment& segment, int64_t first, int64_t last,
    Block<HEAD_DIM, S>& block) {
    int64_t slots[KEY_BLOCK];
    find_slots(segment, first, last, slots);
    for (int64_t n = 0; n < KEY_BLOCK; ++n) {
        const int64_t slot = slots[n < last - first ? n : last - first - 1];
        block.keys[n] = keys.at(slot);
        block.values[n] = values.at(slot);
    }
}

// Turns the scores of the keys that a query sees into weights, those of the others into 0, and prepares its sums.
template <int HEAD_DIM>
void weigh(Query<HEAD_DIM>& own, float* scores, int64_t count) {
    float highest = own.highest;
    for (int64_t key = count; key < KEY_BLOCK; ++key) scores[key] = -INFINITY;
    for (int key = 0; key < KEY_BLOCK; ++key) highest = scores[key] > highest ? scores[key] : highest;
    for (int key = 0; key < KEY_BLOCK; ++key) scores[key] = exp_negative(scores[key] - highest);
    for (int64_t key = count; key < KEY_BLOCK; ++key) scores[key] = 0.0f;
    Vector weights = {};
    for (int key = 0; key < KEY_BLOCK; key += LANES) weights += load(scores + key);
    const float shrink = own.highest == -INFINITY ? 0.0f : exp_negative(own.highest - highest);
    own.highest = highest;
    own.weight = own.weight * shrink + add_up(weights);
    for (int d = 0; d < HEAD_DIM; ++d) own.sum[d] *= shrink;
}

// Lets some queries see the first keys of a block, `keys` at most. All of them see at least one.
template <int HEAD_DIM, int QUERIES, typename S>
void add_block(Query<HEAD_DIM>* own, const Block<HEAD_DIM, S>& block, int64_t start, int keys) {
    float scores[QUERIES][KEY_BLOCK];
    for (int key = 0; key < keys; key += 4) {
        Vector sums[QUERIES][4] = {};
        for (int d = 0; d < HEAD_DIM; d += LANES)
            for (int n = 0; n < 4; ++n) {
                const Vector wide = block.keys[key + n].load_from(d);
                for (int q = 0; q < QUERIES; ++q) sums[q][n] += load(own[q].query + d) * wide;
            }
        for (int q = 0; q < QUERIES; ++q) {
            const Four four = add_up(sums[q][0], sums[q][1], sums[q][2], sums[q][3]);
            std::memcpy(scores[q] + key, &four, sizeof four);
        }
    }
    for (int q = 0; q < QUERIES; ++q) {
        const int64_t seen = own[q].history - start;
        weigh<HEAD_DIM>(own[q], scores[q], seen < keys ? seen : keys);
    }
    // A part of a head at a time: its sums stay in registers.
    constexpr int VECTORS = HEAD_DIM / LANES;
    constexpr int PART = VECTORS % 4 == 0 ? 4 : VECTORS % 2 == 0 ? 2 : 1;
    for (int d = 0; d < HEAD_DIM; d += PART * LANES) {
        Vector sums[QUERIES][PART];
        for (int q = 0; q < QUERIES; ++q)
            for (int n = 0; n < PART; ++n) sums[q][n] = load(own[q].sum + d + n * LANES);
        for (int key = 0; key < keys; ++key)
            for (int n = 0; n < PART; ++n) {
                const Vector wide = block.values[key].load_from(d + n * LANES);
                for (int q = 0; q < QUERIES; ++q) sums[q][n] += scores[q][key] * wide;
            }
        for (int q = 0; q < QUERIES; ++q) std::memcpy(own[q].sum + d, sums[q], sizeof sums[q]);
    }
}

// Some neighbouring tokens of a conversation, all query heads of one key head.
template <int HEAD_DIM, typename T, typename S>
void attend_tile(const Layer& layer, const Segment& segment, int64_t first, int64_t tokens, int kv_head) {
    const int group = layer.heads / layer.kv_heads;
    const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_DIM));
    const Keys<HEAD_DIM, S> keys(layer.keys, layer.key_scales, kv_head * layer.slots);
    const Values<HEAD_DIM, S> values(layer.values, layer.value_scales, kv_head * layer.slots);
    const int64_t num_queries = tokens * group;
    auto* queries = static_cast<Query<HEAD_DIM>*>(allocate(num_queries * sizeof(Query<HEAD_DIM>)));
    for (int64_t n = 0; n < num_queries; ++n) {
        const int64_t token = first + n / group;
        const T* source = static_cast<const T*>(layer.queries) + (segment.row + token) * layer.query_stride +
                          (kv_head * group + n % group) * HEAD_DIM;
        for (int d = 0; d < HEAD_DIM; ++d) queries[n].query[d] = widen(source[d]) * scale;
        for (int d = 0; d < HEAD_DIM; ++d) queries[n].sum[d] = 0.0f;
        queries[n].weight = 0.0f;
        queries[n].highest = -INFINITY;
        queries[n].history = segment.cached + token + 1;
    }
    const int64_t history = segment.cached + first + tokens;
    Block<HEAD_DIM, S> block;
    for (int64_t start = 0; start < history; start += KEY_BLOCK) {
        const int64_t end = start + KEY_BLOCK < history ? start + KEY_BLOCK : history;
        find_tokens<HEAD_DIM, S>(keys, values, segment, start, end, block);
        int64_t n = 0;
        while (n < num_queries && queries[n].history <= start) ++n;
        for (; n + QUERIES_TOGETHER <= num_queries; n += QUERIES_TOGETHER)
            add_block<HEAD_DIM, QUERIES_TOGETHER>(queries + n, block, start, static_cast<int>(end - start));
        for (; n < num_queries; ++n) add_block<HEAD_DIM, 1>(queries + n, block, start, static_cast<int>(end - start));
    }
    for (int64_t n = 0; n < num_queries; ++n) {
        T* out = static_cast<T*>(layer.outputs) +
                 ((segment.row + first + n / group) * layer.heads + kv_head * group + n % group) * HEAD_DIM;
        const float share = 1.0f / queries[n].weight;
        for (int d = 0; d < HEAD_DIM; ++d) narrow(queries[n].sum[d] * share, out + d);
    }
    std::free(queries);
}

template <int HEAD_DIM>
void attend_typed(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    const bool bytes = layer.key_scales != nullptr;
    const auto attend = layer.bf16 ? (bytes ? attend_tile<HEAD_DIM, bf16, int8_t> : attend_tile<HEAD_DIM, bf16, bf16>)
                                   : (bytes ? attend_tile<HEAD_DIM, float, int8_t> : attend_tile<HEAD_DIM, float, float>);
    for_each_tile(
        layer, segments, num_segments, QUERY_TOKENS, threads,
        [&](const Segment& segment, int64_t first, int64_t tokens, int kv_head) {
            attend(layer, segment, first, tokens, kv_head);
        });
}

}  // namespace

void attend(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    switch (layer.head_dim) {
#define PHI4_CASE(size) \
    case size: return attend_typed<size>(layer, segments, num_segments, threads);
        PHI4_FOR_EACH_HEAD_DIM(PHI4_CASE)
#undef PHI4_CASE
    }
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
