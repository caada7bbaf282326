// Causal attention over a cache of bytes in whole numbers, for processors that multiply bytes (AVX-512 VNNI).
//
// A query is rounded to bytes in the groups that its keys have. The weights of a block of keys, times the scales of the
// values, become bytes from 0 to 255 with one scale; their sum, which divides the result, stays exact. Blocks are counted
// from the beginning of a conversation, and nothing else enters a query's sums: neither the other rows of a step, nor how
// a prompt was cut, nor the number of threads changes a bit.

#include "attention.h"

#include "cached_bytes.h"

#include <immintrin.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "rounding.h"
#include "attention_tiles.h"

// Tokens of a tile; with a group of heads each, their queries pass over a block of keys that was packed once.
constexpr int QUERY_TOKENS = 64;
// Queries whose sums are in registers together.
constexpr int QUERIES_TOGETHER = 3;
constexpr int LANES = 16;
constexpr int KEY_VECTORS = KEY_BLOCK / LANES;
constexpr int CHUNK_BYTES = 64;
constexpr int KEY_OFFSET = 128;  // makes a key's bytes unsigned
constexpr float LOG2_E = 1.44269504f;

template <int HEAD_DIM>
struct Sizes {
    static constexpr int GROUP = HEAD_DIM < GROUP_VALUES ? HEAD_DIM : GROUP_VALUES;
    static constexpr int GROUPS = HEAD_DIM / GROUP;
    static constexpr int QUADS = HEAD_DIM / 4;
    static constexpr int CHUNKS = (HEAD_DIM + CHUNK_BYTES - 1) / CHUNK_BYTES;
    static constexpr int VECTORS = 4 * CHUNKS;  // of sums of values
};

// What one query knows after the keys so far.
template <int HEAD_DIM>
struct Query {
    alignas(64) float sums[Sizes<HEAD_DIM>::VECTORS * LANES];  // of values, weighted, as `dimension_of` says
    int8_t values[HEAD_DIM];
    int32_t offsets[Sizes<HEAD_DIM>::GROUPS];  // what KEY_OFFSET adds to the product with a key, negative
    float scales[Sizes<HEAD_DIM>::GROUPS];     // with those of the softmax, to the base 2
    float weight;                              // sum of the weights
    float highest;                             // score
    int64_t history;                           // keys that it sees
};

// Keys and values in the order in which instructions multiply them; behind the last one stand zeros.
template <int HEAD_DIM>
struct Block {
    alignas(64) uint8_t keys[KEY_VECTORS][Sizes<HEAD_DIM>::QUADS][4 * LANES];  // sixteen keys, four dimensions of each
    alignas(64) int8_t values[KEY_BLOCK / 4][Sizes<HEAD_DIM>::VECTORS][4 * LANES];  // sixteen dimensions of four keys
    alignas(64) float key_scales[Sizes<HEAD_DIM>::GROUPS][KEY_BLOCK];
    alignas(64) float value_scales[KEY_BLOCK];
};

// The dimension that a lane of a vector of sums holds.
constexpr int dimension_of(int vector, int lane) {
    return vector / 4 * CHUNK_BYTES + lane / 4 * 16 + vector % 4 * 4 + lane % 4;
}

// Rows of four bytes become columns.
inline void transpose(__m512i (&rows)[16]) {
    __m512i pairs[16];
    for (int n = 0; n < 16; n += 2) {
        pairs[n] = _mm512_unpacklo_epi32(rows[n], rows[n + 1]);
        pairs[n + 1] = _mm512_unpackhi_epi32(rows[n], rows[n + 1]);
    }
    for (int n = 0; n < 16; n += 4) {
        rows[n] = _mm512_unpacklo_epi64(pairs[n], pairs[n + 2]);
        rows[n + 1] = _mm512_unpackhi_epi64(pairs[n], pairs[n + 2]);
        rows[n + 2] = _mm512_unpacklo_epi64(pairs[n + 1], pairs[n + 3]);
        rows[n + 3] = _mm512_unpackhi_epi64(pairs[n + 1], pairs[n + 3]);
    }
    for (int n = 0; n < 4; ++n) {
        const __m512i even = _mm512_shuffle_i32x4(rows[n], rows[n + 4], 0x88);
        const __m512i odd = _mm512_shuffle_i32x4(rows[n], rows[n + 4], 0xdd);
        const __m512i even_high = _mm512_shuffle_i32x4(rows[n + 8], rows[n + 12], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(rows[n + 8], rows[n + 12], 0xdd);
        rows[n] = _mm512_shuffle_i32x4(even, even_high, 0x88);
        rows[n + 4] = _mm512_shuffle_i32x4(odd, odd_high, 0x88);
        rows[n + 8] = _mm512_shuffle_i32x4(even, even_high, 0xdd);
        rows[n + 12] = _mm512_shuffle_i32x4(odd, odd_high, 0xdd);
    }
}

// 64 bytes of a head, zeros behind its end.
template <int HEAD_DIM>
inline __m512i load_chunk(const int8_t* head, int chunk) {
    constexpr int REST = HEAD_DIM % CHUNK_BYTES;
    if (REST != 0 && chunk == HEAD_DIM / CHUNK_BYTES)
        return _mm512_maskz_loadu_epi8((uint64_t{1} << REST) - 1, head + chunk * CHUNK_BYTES);
    return _mm512_loadu_si512(head + chunk * CHUNK_BYTES);
}

template <int HEAD_DIM>
void pack_keys(const int8_t* keys, const float* scales, const int64_t* slots, int64_t count, Block<HEAD_DIM>& block) {
    const __m512i offset = _mm512_set1_epi8(static_cast<char>(KEY_OFFSET));
    for (int vector = 0; vector < KEY_VECTORS; ++vector)
        for (int chunk = 0; chunk < Sizes<HEAD_DIM>::CHUNKS; ++chunk) {
            __m512i rows[LANES];
            for (int n = 0; n < LANES; ++n) {
                const int64_t key = vector * LANES + n;
                rows[n] = key < count ? load_chunk<HEAD_DIM>(keys + slots[key] * HEAD_DIM, chunk) : _mm512_setzero_si512();
                rows[n] = _mm512_xor_si512(rows[n], offset);
            }
            transpose(rows);
            for (int n = 0; n < LANES && chunk * LANES + n < Sizes<HEAD_DIM>::QUADS; ++n)
                _mm512_store_si512(block.keys[vector][chunk * LANES + n], rows[n]);
        }
    for (int64_t key = 0; key < KEY_BLOCK; ++key)
        for (int group = 0; group < Sizes<HEAD_DIM>::GROUPS; ++group)
            block.key_scales[group][key] = key < count ? scales[slots[key] * Sizes<HEAD_DIM>::GROUPS + group] : 0.0f;
}

template <int HEAD_DIM>
void pack_values(const int8_t* values, const float* scales, const int64_t* slots, int64_t count, Block<HEAD_DIM>& block) {
    for (int quad = 0; quad < KEY_BLOCK / 4; ++quad)
        for (int chunk = 0; chunk < Sizes<HEAD_DIM>::CHUNKS; ++chunk) {
            __m512i rows[4];
            for (int n = 0; n < 4; ++n) {
                const int64_t key = quad * 4 + n;
                rows[n] = key < count ? load_chunk<HEAD_DIM>(values + slots[key] * HEAD_DIM, chunk) : _mm512_setzero_si512();
            }
            const __m512i first_low = _mm512_unpacklo_epi8(rows[0], rows[1]);
            const __m512i first_high = _mm512_unpackhi_epi8(rows[0], rows[1]);
            const __m512i last_low = _mm512_unpacklo_epi8(rows[2], rows[3]);
            const __m512i last_high = _mm512_unpackhi_epi8(rows[2], rows[3]);
            int8_t(*own)[4 * LANES] = block.values[quad] + chunk * 4;
            _mm512_store_si512(own[0], _mm512_unpacklo_epi16(first_low, last_low));
            _mm512_store_si512(own[1], _mm512_unpackhi_epi16(first_low, last_low));
            _mm512_store_si512(own[2], _mm512_unpacklo_epi16(first_high, last_high));
            _mm512_store_si512(own[3], _mm512_unpackhi_epi16(first_high, last_high));
        }
    for (int64_t key = 0; key < KEY_BLOCK; ++key) block.value_scales[key] = key < count ? scales[slots[key]] : 0.0f;
}

template <int HEAD_DIM, typename T>
void begin(const T* source, int64_t history, Query<HEAD_DIM>& own) {
    constexpr int GROUP = Sizes<HEAD_DIM>::GROUP;
    const float factor = LOG2_E / std::sqrt(static_cast<float>(HEAD_DIM));
    for (int group = 0; group < Sizes<HEAD_DIM>::GROUPS; ++group) {
        const int32_t total = round_group<GROUP>(source + group * GROUP, own.values + group * GROUP, own.scales + group);
        own.scales[group] *= factor;
        own.offsets[group] = -KEY_OFFSET * total;
    }
    std::memset(own.sums, 0, sizeof own.sums);
    own.weight = 0.0f;
    own.highest = -INFINITY;
    own.history = history;
}

// The same four bytes in every lane.
inline __m512i spread(const void* source) {
    int32_t four;
    std::memcpy(&four, source, sizeof four);
    return _mm512_set1_epi32(four);
}

// 2^x for x <= 0 with a relative error below 3e-6.
inline __m512 power_of_two(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 rest = _mm512_sub_ps(x, whole);
    __m512 power = _mm512_set1_ps(1.33335581e-3f);
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(9.61812911e-3f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(5.55041087e-2f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(2.40226507e-1f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(6.93147181e-1f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(power, whole);
}

// Products of some queries with the keys of a block.
template <int HEAD_DIM, int QUERIES>
inline void score(const Query<HEAD_DIM>* own, const Block<HEAD_DIM>& block, __m512 (&scores)[QUERIES][KEY_VECTORS]) {
    constexpr int GROUP = Sizes<HEAD_DIM>::GROUP;
    for (int group = 0; group < Sizes<HEAD_DIM>::GROUPS; ++group) {
        __m512i sums[QUERIES][KEY_VECTORS];
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < KEY_VECTORS; ++v) sums[q][v] = _mm512_set1_epi32(own[q].offsets[group]);
#pragma GCC unroll 8  // compilers move sums from register to register at the end of a loop
        for (int quad = group * GROUP / 4; quad < (group + 1) * GROUP / 4; ++quad) {
            __m512i keys[KEY_VECTORS];
            for (int v = 0; v < KEY_VECTORS; ++v) keys[v] = _mm512_load_si512(block.keys[v][quad]);
            for (int q = 0; q < QUERIES; ++q) {
                const __m512i query = spread(own[q].values + 4 * quad);
                for (int v = 0; v < KEY_VECTORS; ++v) sums[q][v] = _mm512_dpbusd_epi32(sums[q][v], keys[v], query);
            }
        }
        for (int v = 0; v < KEY_VECTORS; ++v) {
            const __m512 scales = _mm512_load_ps(block.key_scales[group] + v * LANES);
            for (int q = 0; q < QUERIES; ++q) {
                const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[q][v]), scales);
                const __m512 before = group == 0 ? _mm512_setzero_ps() : scores[q][v];
                scores[q][v] = _mm512_fmadd_ps(part, _mm512_set1_ps(own[q].scales[group]), before);
            }
        }
    }
}

// The weights of a block for one query.
struct Weights {
    alignas(64) uint8_t bytes[KEY_BLOCK];
    float unit;    // what a byte of 1 stands for
    float shrink;  // for the sums so far
};

// Turns the scores of the first `seen` keys into weights, and those of the others into 0.
template <int HEAD_DIM>
inline void weigh(
    Query<HEAD_DIM>& own, const __m512 (&scores)[KEY_VECTORS], const float* value_scales, int64_t seen, Weights& weights) {
    __mmask16 masks[KEY_VECTORS];
    __m512 highest = _mm512_set1_ps(own.highest);
    for (int v = 0; v < KEY_VECTORS; ++v) {
        const int64_t rest = seen - v * LANES;
        masks[v] = rest >= LANES ? 0xffff : rest <= 0 ? 0 : (1 << rest) - 1;
        highest = _mm512_mask_max_ps(highest, masks[v], highest, scores[v]);
    }
    const float top = _mm512_reduce_max_ps(highest);
    __m512 sum = _mm512_setzero_ps(), largest = _mm512_setzero_ps(), products[KEY_VECTORS];
    __mmask16 none = 0;  // lanes that are no number
    for (int v = 0; v < KEY_VECTORS; ++v) {
        const __m512 power = power_of_two(_mm512_sub_ps(scores[v], _mm512_set1_ps(top)));
        const __m512 weight = _mm512_maskz_mov_ps(masks[v], power);
        sum = _mm512_add_ps(sum, weight);
        products[v] = _mm512_mul_ps(weight, _mm512_load_ps(value_scales + v * LANES));
        none |= _mm512_cmp_ps_mask(products[v], products[v], _CMP_UNORD_Q);
        largest = _mm512_max_ps(largest, products[v]);
    }
    const float most = _mm512_reduce_max_ps(largest);
    const __m512 inverse = _mm512_set1_ps(most >= SMALLEST ? 255.0f / most : 0.0f);
    for (int v = 0; v < KEY_VECTORS; ++v) {
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(products[v], inverse));
        _mm_store_si128(reinterpret_cast<__m128i*>(weights.bytes + v * LANES), _mm512_cvtepi32_epi8(whole));
    }
    weights.unit = none == 0 ? most / 255.0f : NAN;
    weights.shrink = own.highest == -INFINITY ? 0.0f : _mm512_cvtss_f32(power_of_two(_mm512_set1_ps(own.highest - top)));
    own.weight = own.weight * weights.shrink + _mm512_reduce_add_ps(sum);
    own.highest = top;
}

// Adds the weighted values of a block.
template <int HEAD_DIM, int QUERIES>
inline void add_values(Query<HEAD_DIM>* own, const Block<HEAD_DIM>& block, const Weights (&weights)[QUERIES]) {
    constexpr int VECTORS = Sizes<HEAD_DIM>::VECTORS;
    __m512i sums[QUERIES][VECTORS];
    for (int q = 0; q < QUERIES; ++q)
        for (int v = 0; v < VECTORS; ++v) sums[q][v] = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int quad = 0; quad < KEY_BLOCK / 4; ++quad) {
        __m512i four[QUERIES];
        for (int q = 0; q < QUERIES; ++q) four[q] = spread(weights[q].bytes + 4 * quad);
        for (int v = 0; v < VECTORS; ++v) {
            const __m512i values = _mm512_load_si512(block.values[quad][v]);
            for (int q = 0; q < QUERIES; ++q) sums[q][v] = _mm512_dpbusd_epi32(sums[q][v], four[q], values);
        }
    }
    for (int q = 0; q < QUERIES; ++q) {
        const __m512 unit = _mm512_set1_ps(weights[q].unit), shrink = _mm512_set1_ps(weights[q].shrink);
        for (int v = 0; v < VECTORS; ++v) {
            float* total = own[q].sums + v * LANES;
            const __m512 before = _mm512_mul_ps(_mm512_load_ps(total), shrink);
            _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[q][v]), unit, before));
        }
    }
}

// Lets some queries see the first keys of a block, `keys` at most. All of them see at least one.
template <int HEAD_DIM, int QUERIES>
void add_block(Query<HEAD_DIM>* own, const Block<HEAD_DIM>& block, int64_t start, int64_t keys) {
    __m512 scores[QUERIES][KEY_VECTORS];
    score<HEAD_DIM, QUERIES>(own, block, scores);
    Weights weights[QUERIES];
    for (int q = 0; q < QUERIES; ++q) {
        const int64_t seen = own[q].history - start;
        weigh<HEAD_DIM>(own[q], scores[q], block.value_scales, seen < keys ? seen : keys, weights[q]);
    }
    add_values<HEAD_DIM, QUERIES>(own, block, weights);
}

template <int HEAD_DIM, typename T>
void finish(const Query<HEAD_DIM>& own, T* out) {
    const float share = 1.0f / own.weight;
    for (int vector = 0; vector < Sizes<HEAD_DIM>::VECTORS; ++vector)
        for (int lane = 0; lane < LANES; ++lane) {
            const int dimension = dimension_of(vector, lane);
            if (dimension < HEAD_DIM) narrow(own.sums[vector * LANES + lane] * share, out + dimension);
        }
}

// Some neighbouring tokens of a conversation, all query heads of one key head.
template <int HEAD_DIM, typename T>
void attend_tile(const Layer& layer, const Segment& segment, int64_t first, int64_t tokens, int kv_head) {
    const int group = layer.heads / layer.kv_heads;
    const int64_t num_queries = tokens * group, first_slot = kv_head * layer.slots;
    const int8_t* keys = static_cast<const int8_t*>(layer.keys) + first_slot * HEAD_DIM;
    const int8_t* values = static_cast<const int8_t*>(layer.values) + first_slot * HEAD_DIM;
    const float* key_scales = layer.key_scales + first_slot * Sizes<HEAD_DIM>::GROUPS;
    const float* value_scales = layer.value_scales + first_slot;
    auto* queries = static_cast<Query<HEAD_DIM>*>(std::aligned_alloc(64, num_queries * sizeof(Query<HEAD_DIM>)));
    for (int64_t n = 0; n < num_queries; ++n) {
        const int64_t token = first + n / group;
        const T* source = static_cast<const T*>(layer.queries) + (segment.row + token) * layer.query_stride +
                          (kv_head * group + n % group) * HEAD_DIM;
        begin<HEAD_DIM>(source, segment.cached + token + 1, queries[n]);
    }
    const int64_t history = segment.cached + first + tokens;
    Block<HEAD_DIM> block;
    int64_t slots[KEY_BLOCK];
    for (int64_t start = 0; start < history; start += KEY_BLOCK) {
        const int64_t keys_here = start + KEY_BLOCK < history ? KEY_BLOCK : history - start;
        find_slots(segment, start, start + keys_here, slots);
        pack_keys<HEAD_DIM>(keys, key_scales, slots, keys_here, block);
        pack_values<HEAD_DIM>(values, value_scales, slots, keys_here, block);
        int64_t n = 0;
        while (n < num_queries && queries[n].history <= start) ++n;
        for (; n + QUERIES_TOGETHER <= num_queries; n += QUERIES_TOGETHER)
            add_block<HEAD_DIM, QUERIES_TOGETHER>(queries + n, block, start, keys_here);
        for (; n < num_queries; ++n) add_block<HEAD_DIM, 1>(queries + n, block, start, keys_here);
    }
    for (int64_t n = 0; n < num_queries; ++n) {
        const int64_t row = segment.row + first + n / group;
        finish<HEAD_DIM>(
            queries[n], static_cast<T*>(layer.outputs) + (row * layer.heads + kv_head * group + n % group) * HEAD_DIM);
    }
    std::free(queries);
}

template <int HEAD_DIM>
void attend_typed(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    const auto attend = layer.bf16 ? attend_tile<HEAD_DIM, bf16> : attend_tile<HEAD_DIM, float>;
    for_each_tile(
        layer, segments, num_segments, QUERY_TOKENS, threads,
        [&](const Segment& segment, int64_t first, int64_t tokens, int kv_head) {
            attend(layer, segment, first, tokens, kv_head);
        });
}

}  // namespace

void attend_bytes(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    switch (layer.head_dim) {
#define PHI4_CASE(size) \
    case size: return attend_typed<size>(layer, segments, num_segments, threads);
        PHI4_FOR_EACH_HEAD_DIM(PHI4_CASE)
#undef PHI4_CASE
    }
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
