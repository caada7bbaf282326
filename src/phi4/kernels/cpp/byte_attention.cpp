// Causal attention over a cache of bytes in whole numbers, for processors that multiply bytes (AVX-512 VNNI).
//
// A query is rounded to bytes in the groups that its keys have. The weights of a block of keys, times the scales of the
// values, become bytes from 0 to 255 with one scale; their sum, which divides the result, stays exact.

#include "attention.h"

#include "allocate.h"
#include "cached_bytes.h"
#include "team.h"

#include <immintrin.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "rounding.h"
#include "packed_attention.h"

constexpr int KEY_OFFSET = 128;  // makes a key's bytes unsigned

template <int HEAD_DIM_>
struct Bytes {
    static constexpr int HEAD_DIM = HEAD_DIM_;
    static constexpr int GROUP = group_of_key(HEAD_DIM);
    static constexpr int GROUPS = HEAD_DIM / GROUP;
    static constexpr int CHUNKS = (HEAD_DIM + CHUNK_BYTES - 1) / CHUNK_BYTES;
    static constexpr int VECTORS = 4 * CHUNKS;  // of sums of values
    static constexpr int MOST_QUERIES = QUERIES_TOGETHER;
    using Scope = NoScope;

    struct Query : Sums<VECTORS> {
        int8_t values[HEAD_DIM];
        int32_t offsets[GROUPS];  // what KEY_OFFSET adds to the product with a key, negative
        float scales[GROUPS];     // with those of the softmax, to the base 2
    };

    // Keys and values in the order in which instructions multiply them; behind the last one stand zeros.
    struct Block {
        alignas(64) uint8_t keys[KEY_VECTORS][HEAD_DIM / 4][4 * LANES];  // sixteen keys, four dimensions of each
        alignas(64) int8_t values[KEY_BLOCK / 4][VECTORS][4 * LANES];    // sixteen dimensions of four keys
        alignas(64) float key_scales[GROUPS][KEY_BLOCK];
        alignas(64) float value_scales[KEY_BLOCK];
        Ahead ahead;
    };

    struct Weights {
        alignas(64) uint8_t bytes[KEY_BLOCK];
        float unit;    // what a byte of 1 stands for
        float shrink;  // for the sums so far
    };

    const int8_t* keys;
    const int8_t* values;
    const float* key_scales;
    const float* value_scales;

    Bytes(const Layer& layer, int64_t first_slot)
        : keys(static_cast<const int8_t*>(layer.keys) + first_slot * HEAD_DIM),
          values(static_cast<const int8_t*>(layer.values) + first_slot * HEAD_DIM),
          key_scales(layer.key_scales + first_slot * GROUPS),
          value_scales(layer.value_scales + first_slot) {}

    // The dimension that a lane of a vector of sums holds.
    static constexpr int dimension_of(int vector, int lane) {
        return vector / 4 * CHUNK_BYTES + lane / 4 * 16 + vector % 4 * 4 + lane % 4;
    }

    template <typename T>
    static void begin(const T* source, Query& own) {
        const float factor = LOG2_E / sqrtf(static_cast<float>(HEAD_DIM));
        for (int group = 0; group < GROUPS; ++group) {
            const int32_t total =
                round_group<GROUP>(source + group * GROUP, own.values + group * GROUP, own.scales + group);
            own.scales[group] *= factor;
            own.offsets[group] = -KEY_OFFSET * total;
        }
    }

    void pack(const int64_t* slots, int64_t count, Block& block) const {
        const __m512i offset = _mm512_set1_epi8(static_cast<char>(KEY_OFFSET));
        for (int v = 0; v < KEY_VECTORS; ++v)
            pack_sixteen_keys<HEAD_DIM>(keys, slots + v * LANES, count - v * LANES, offset, block.keys[v]);
        for (int quad = 0; quad < KEY_BLOCK / 4; ++quad) pack_four_values(slots + 4 * quad, count - 4 * quad, block.values[quad]);
        if (GROUPS == 4 && count == KEY_BLOCK && slots[KEY_BLOCK - 1] - slots[0] == KEY_BLOCK - 1) {
            for (int v = 0; v < KEY_VECTORS; ++v) pack_scales_of_sixteen(slots[0] + v * LANES, block, v * LANES);
            return;
        }
        for (int64_t key = 0; key < KEY_BLOCK; ++key) {
            for (int group = 0; group < GROUPS; ++group)
                block.key_scales[group][key] = key < count ? key_scales[slots[key] * GROUPS + group] : 0.0f;
            block.value_scales[key] = key < count ? value_scales[slots[key]] : 0.0f;
        }
    }

    // The scales of neighbouring slots, where keys have four groups.
    void pack_scales_of_sixteen(int64_t slot, Block& block, int key) const {
        _mm512_store_ps(block.value_scales + key, _mm512_loadu_ps(value_scales + slot));
        __m512 four_keys[4];
        for (int n = 0; n < 4; ++n) four_keys[n] = _mm512_loadu_ps(key_scales + (slot + 4 * n) * GROUPS);
        for (int group = 0; group < GROUPS; group += 2) {
            // Of eight keys, those of one group and behind them those of the next.
            const __m512i places = _mm512_add_epi32(
                _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29), _mm512_set1_epi32(group));
            const __m512 first = _mm512_permutex2var_ps(four_keys[0], places, four_keys[1]);
            const __m512 last = _mm512_permutex2var_ps(four_keys[2], places, four_keys[3]);
            _mm512_store_ps(block.key_scales[group] + key, _mm512_shuffle_f32x4(first, last, 0x44));
            _mm512_store_ps(block.key_scales[group + 1] + key, _mm512_shuffle_f32x4(first, last, 0xee));
        }
    }

    void pack_four_values(const int64_t* slots, int64_t count, int8_t (*packed)[4 * LANES]) const {
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            __m512i rows[4];
            for (int n = 0; n < 4; ++n) {
                rows[n] = _mm512_setzero_si512();
                if (n < count) rows[n] = load_chunk<HEAD_DIM>(values + slots[n] * HEAD_DIM, chunk);
            }
            const __m512i first_low = _mm512_unpacklo_epi8(rows[0], rows[1]);
            const __m512i first_high = _mm512_unpackhi_epi8(rows[0], rows[1]);
            const __m512i last_low = _mm512_unpacklo_epi8(rows[2], rows[3]);
            const __m512i last_high = _mm512_unpackhi_epi8(rows[2], rows[3]);
            int8_t(*own)[4 * LANES] = packed + chunk * 4;
            _mm512_store_si512(own[0], _mm512_unpacklo_epi16(first_low, last_low));
            _mm512_store_si512(own[1], _mm512_unpackhi_epi16(first_low, last_low));
            _mm512_store_si512(own[2], _mm512_unpacklo_epi16(first_high, last_high));
            _mm512_store_si512(own[3], _mm512_unpackhi_epi16(first_high, last_high));
        }
    }

    template <int QUERIES>
    static inline void score(const Query* own, const Block& block, __m512 (&scores)[QUERIES][KEY_VECTORS]) {
        for (int group = 0; group < GROUPS; ++group) {
            __m512i sums[QUERIES][KEY_VECTORS];
            for (int q = 0; q < QUERIES; ++q)
                for (int v = 0; v < KEY_VECTORS; ++v) sums[q][v] = _mm512_set1_epi32(own[q].offsets[group]);
#pragma GCC unroll 8  // compilers move sums from register to register at the end of a loop
            for (int quad = group * GROUP / 4; quad < (group + 1) * GROUP / 4; ++quad) {
                block.ahead.ask_for_keys(quad);
                __m512i keys[KEY_VECTORS];
                for (int v = 0; v < KEY_VECTORS; ++v) keys[v] = _mm512_load_si512(block.keys[v][quad]);
                for (int q = 0; q < QUERIES; ++q) {
                    const __m512i query = spread(own[q].values + 4 * quad);
                    for (int v = 0; v < KEY_VECTORS; ++v) sums[q][v] = _mm512_dpbusd_epi32(sums[q][v], keys[v], query);
                }
            }
            for (int v = 0; v < KEY_VECTORS; ++v) {
                const __m512 scales = _mm512_load_ps(block.key_scales[group] + v * LANES);
                for (int q = 0; q < QUERIES; ++q)
                    scores[q][v] = add_group(scores[q][v], group, sums[q][v], scales, own[q].scales[group]);
            }
        }
    }

    // What the products of a group add to the scores of the groups before.
    static inline __m512 add_group(__m512 scores, int group, __m512i sums, __m512 key_scales, float query_scale) {
        const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), key_scales);
        return _mm512_fmadd_ps(part, _mm512_set1_ps(query_scale), group == 0 ? _mm512_setzero_ps() : scores);
    }

    static inline void round_weights(const __m512 (&wide)[KEY_VECTORS], const Block& block, Weights& weights) {
        __m512 products[KEY_VECTORS], largest = _mm512_setzero_ps();
        __mmask16 none = 0;  // lanes that are no number
        for (int v = 0; v < KEY_VECTORS; ++v) {
            products[v] = _mm512_mul_ps(wide[v], _mm512_load_ps(block.value_scales + v * LANES));
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
    }

    template <int QUERIES>
    static inline void add_values(Query* own, const Block& block, const Weights (&weights)[QUERIES]) {
        __m512i sums[QUERIES][VECTORS];
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < VECTORS; ++v) sums[q][v] = _mm512_setzero_si512();
#pragma GCC unroll 16
        for (int quad = 0; quad < KEY_BLOCK / 4; ++quad) {
            block.ahead.template ask_for_values<HEAD_DIM>(quad);
            __m512i four[QUERIES];
            for (int q = 0; q < QUERIES; ++q) four[q] = spread(weights[q].bytes + 4 * quad);
            for (int v = 0; v < VECTORS; ++v) {
                const __m512i values = _mm512_load_si512(block.values[quad][v]);
                for (int q = 0; q < QUERIES; ++q) sums[q][v] = _mm512_dpbusd_epi32(sums[q][v], four[q], values);
            }
        }
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < VECTORS; ++v) add_weighted(own[q].sums + v * LANES, sums[q][v], weights[q]);
    }

    // Adds the weighted values of a block to a vector of sums, in their order.
    static inline void add_weighted(float* total, __m512i sums, const Weights& weights) {
        const __m512 before = _mm512_mul_ps(_mm512_load_ps(total), _mm512_set1_ps(weights.shrink));
        _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(weights.unit), before));
    }
};

#if defined(__AMX_INT8__)
#include "tile_bytes.h"
#else
template <int HEAD_DIM>
using Best = Bytes<HEAD_DIM>;
#endif

}  // namespace

void attend_bytes(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    switch (layer.head_dim) {
#define PHI4_CASE(size)                                                                                  \
    case size:                                                                                           \
        return (layer.bf16 ? attend_all<Best<size>, bf16> : attend_all<Best<size>, float>)(            \
            layer, segments, num_segments, threads);
        PHI4_FOR_EACH_HEAD_DIM(PHI4_CASE)
#undef PHI4_CASE
    }
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
