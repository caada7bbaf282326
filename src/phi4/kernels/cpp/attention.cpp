// Causal attention of many conversations over one paged cache, in fp32 whatever the cache holds.
//
// Every query is computed by itself, in an order that its position alone decides: blocks of KEY_BLOCK keys counted from
// the beginning of its conversation, and within a product LANES partial sums that are added up as a tree. Neither the
// other rows of a step, nor how a prompt was cut, nor the number of threads changes a bit.

#include "attention.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

constexpr int LANES = 16;
constexpr int KEY_BLOCK = 64;
// Queries that share the conversion of a block of keys to fp32, in tokens; a group of heads multiplies it.
constexpr int QUERY_TOKENS = 16;

#include "numbers.h"

template <int HEAD_DIM>
inline float dot(const float* a, const float* b) {
    float sums[LANES] = {};
    for (int d = 0; d < HEAD_DIM; d += LANES)
        for (int lane = 0; lane < LANES; ++lane) sums[lane] += a[d + lane] * b[d + lane];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    return sums[0];
}

// What one query knows after the keys so far.
template <int HEAD_DIM>
struct Query {
    float query[HEAD_DIM];  // scaled
    float sum[HEAD_DIM];    // of values, weighted
    float weight;           // sum of the weights
    float highest;          // score
    int64_t history;        // keys that it sees
};

// Scratch memory of one thread.
template <int HEAD_DIM>
struct Scratch {
    float keys[KEY_BLOCK][HEAD_DIM];
    float values[KEY_BLOCK][HEAD_DIM];
};

// Reads the tokens first <= position < last of a conversation, as fp32.
template <int HEAD_DIM, typename T>
void read_tokens(const T* storage, const Segment& segment, int64_t first, int64_t last, float (*out)[HEAD_DIM]) {
    for (int64_t n = 0; n < segment.num_runs; ++n) {
        const Run& run = segment.runs[n];
        int64_t low = run.position > first ? run.position : first;
        int64_t high = run.position + run.count < last ? run.position + run.count : last;
        for (int64_t position = low; position < high; ++position) {
            const T* source = storage + (run.slot + position - run.position) * HEAD_DIM;
            for (int d = 0; d < HEAD_DIM; ++d) out[position - first][d] = widen(source[d]);
        }
    }
}

template <int HEAD_DIM>
void add_block(Query<HEAD_DIM>& own, const Scratch<HEAD_DIM>& block, int count) {
    float scores[KEY_BLOCK];
    float highest = own.highest;
    for (int key = 0; key < count; ++key) {
        scores[key] = dot<HEAD_DIM>(own.query, block.keys[key]);
        highest = scores[key] > highest ? scores[key] : highest;
    }
    for (int key = 0; key < count; ++key) scores[key] -= highest;
    for (int key = count; key < KEY_BLOCK; ++key) scores[key] = -INFINITY;
    float lanes[LANES] = {};
    for (int key = 0; key < KEY_BLOCK; ++key) scores[key] = exp_negative(scores[key]);
    for (int key = count; key < KEY_BLOCK; ++key) scores[key] = 0.0f;
    for (int key = 0; key < KEY_BLOCK; key += LANES)
        for (int lane = 0; lane < LANES; ++lane) lanes[lane] += scores[key + lane];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    float shrink = own.highest == -INFINITY ? 0.0f : exp_negative(own.highest - highest);
    own.highest = highest;
    own.weight = own.weight * shrink + lanes[0];
    float sum[HEAD_DIM];
    for (int d = 0; d < HEAD_DIM; ++d) sum[d] = own.sum[d] * shrink;
    for (int key = 0; key < count; ++key) {
        float weight = scores[key];
        for (int d = 0; d < HEAD_DIM; ++d) sum[d] += weight * block.values[key][d];
    }
    for (int d = 0; d < HEAD_DIM; ++d) own.sum[d] = sum[d];
}

// Some neighbouring tokens of a conversation, all query heads of one key head.
template <int HEAD_DIM, typename T>
void attend_tile(const Layer& layer, const Segment& segment, int64_t first, int64_t tokens, int kv_head) {
    const int group = layer.heads / layer.kv_heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(HEAD_DIM));
    const int64_t head_values = layer.slots * HEAD_DIM;
    const T* keys = static_cast<const T*>(layer.keys) + kv_head * head_values;
    const T* values = static_cast<const T*>(layer.values) + kv_head * head_values;
    const int64_t num_queries = tokens * group;
    auto* queries = static_cast<Query<HEAD_DIM>*>(std::malloc(num_queries * sizeof(Query<HEAD_DIM>)));
    auto* block = static_cast<Scratch<HEAD_DIM>*>(std::malloc(sizeof(Scratch<HEAD_DIM>)));
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
    for (int64_t start = 0; start < history; start += KEY_BLOCK) {
        const int64_t end = start + KEY_BLOCK < history ? start + KEY_BLOCK : history;
        read_tokens<HEAD_DIM>(keys, segment, start, end, block->keys);
        read_tokens<HEAD_DIM>(values, segment, start, end, block->values);
        for (int64_t n = 0; n < num_queries; ++n) {
            const int64_t seen = (queries[n].history < end ? queries[n].history : end) - start;
            if (seen > 0) add_block<HEAD_DIM>(queries[n], *block, static_cast<int>(seen));
        }
    }
    for (int64_t n = 0; n < num_queries; ++n) {
        T* out = static_cast<T*>(layer.outputs) +
                 ((segment.row + first + n / group) * layer.heads + kv_head * group + n % group) * HEAD_DIM;
        const float share = 1.0f / queries[n].weight;
        for (int d = 0; d < HEAD_DIM; ++d) narrow(queries[n].sum[d] * share, out + d);
    }
    std::free(block);
    std::free(queries);
}

template <int HEAD_DIM, typename T>
void attend_all(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    // One item is a tile of a segment with one key head. Long tiles first would balance better; segments come as they are.
    int64_t num_tiles = 0;
    for (int64_t n = 0; n < num_segments; ++n) num_tiles += (segments[n].length + QUERY_TOKENS - 1) / QUERY_TOKENS;
    struct Tile {
        int64_t segment, first, tokens;
    };
    auto* tiles = static_cast<Tile*>(std::malloc(num_tiles * sizeof(Tile)));
    int64_t at = 0;
    for (int64_t n = 0; n < num_segments; ++n)
        for (int64_t first = 0; first < segments[n].length; first += QUERY_TOKENS) {
            const int64_t rest = segments[n].length - first;
            tiles[at++] = {n, first, rest < QUERY_TOKENS ? rest : QUERY_TOKENS};
        }
    const int64_t num_items = num_tiles * layer.kv_heads;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t item = 0; item < num_items; ++item) {
        const Tile& tile = tiles[item / layer.kv_heads];
        attend_tile<HEAD_DIM, T>(
            layer, segments[tile.segment], tile.first, tile.tokens, static_cast<int>(item % layer.kv_heads));
    }
    std::free(tiles);
}

template <int HEAD_DIM>
void attend_typed(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    if (layer.bf16)
        attend_all<HEAD_DIM, bf16>(layer, segments, num_segments, threads);
    else
        attend_all<HEAD_DIM, float>(layer, segments, num_segments, threads);
}

}  // namespace

void attend(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    switch (layer.head_dim) {
        case 16: return attend_typed<16>(layer, segments, num_segments, threads);
        case 32: return attend_typed<32>(layer, segments, num_segments, threads);
        case 64: return attend_typed<64>(layer, segments, num_segments, threads);
        case 96: return attend_typed<96>(layer, segments, num_segments, threads);
        case 128: return attend_typed<128>(layer, segments, num_segments, threads);
    }
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
