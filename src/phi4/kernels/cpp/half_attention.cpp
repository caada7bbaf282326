// Causal attention over a cache of bf16, for processors that multiply bf16 (AVX-512 BF16). Sums are fp32; weights are
// rounded to bf16 before they are multiplied with values, and their sum, which divides the result, is that of before.

#include "attention.h"

#include "allocate.h"
#include "team.h"

#include <immintrin.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "packed_attention.h"

inline __m512 add_pairs(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

template <int HEAD_DIM_>
struct Halves {
    static constexpr int HEAD_DIM = HEAD_DIM_;
    static constexpr int HEAD_BYTES = 2 * HEAD_DIM;
    static constexpr int CHUNKS = (HEAD_BYTES + CHUNK_BYTES - 1) / CHUNK_BYTES;
    static constexpr int VECTORS = 2 * CHUNKS;  // of sums of values
    static constexpr int MOST_QUERIES = QUERIES_TOGETHER;
    using Scope = NoScope;

    struct Query : Sums<VECTORS> {
        bf16 values[HEAD_DIM];
    };

    // Keys and values in the order in which instructions multiply them; behind the last one stand zeros.
    struct Block {
        alignas(64) uint8_t keys[KEY_VECTORS][HEAD_DIM / 2][4 * LANES];  // sixteen keys, two dimensions of each
        alignas(64) uint8_t values[KEY_BLOCK / 2][VECTORS][4 * LANES];   // sixteen dimensions of two keys
        Ahead ahead;
    };

    struct Weights {
        alignas(64) bf16 values[KEY_BLOCK];
        float shrink;  // for the sums so far
    };

    const bf16* keys;
    const bf16* values;

    Halves(const Layer& layer, int64_t first_slot)
        : keys(static_cast<const bf16*>(layer.keys) + first_slot * HEAD_DIM),
          values(static_cast<const bf16*>(layer.values) + first_slot * HEAD_DIM) {}

    // The dimension that a lane of a vector of sums holds.
    static constexpr int dimension_of(int vector, int lane) {
        return vector / 2 * (CHUNK_BYTES / 2) + lane / 4 * 8 + vector % 2 * 4 + lane % 4;
    }

    static void begin(const bf16* source, Query& own) { std::memcpy(own.values, source, sizeof own.values); }

    void pack(const int64_t* slots, int64_t count, Block& block) const {
        for (int v = 0; v < KEY_VECTORS; ++v)
            pack_sixteen_keys<HEAD_BYTES>(
                keys, slots + v * LANES, count - v * LANES, _mm512_setzero_si512(), block.keys[v]);
        for (int pair = 0; pair < KEY_BLOCK / 2; ++pair) pack_two_values(slots + 2 * pair, count - 2 * pair, block.values[pair]);
    }

    void pack_two_values(const int64_t* slots, int64_t count, uint8_t (*packed)[4 * LANES]) const {
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            __m512i rows[2];
            for (int n = 0; n < 2; ++n) {
                rows[n] = _mm512_setzero_si512();
                if (n < count) rows[n] = load_chunk<HEAD_BYTES>(values + slots[n] * HEAD_DIM, chunk);
            }
            _mm512_store_si512(packed[chunk * 2], _mm512_unpacklo_epi16(rows[0], rows[1]));
            _mm512_store_si512(packed[chunk * 2 + 1], _mm512_unpackhi_epi16(rows[0], rows[1]));
        }
    }

    template <int QUERIES>
    static inline void score(const Query* own, const Block& block, __m512 (&scores)[QUERIES][KEY_VECTORS]) {
        __m512 sums[QUERIES][KEY_VECTORS];
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < KEY_VECTORS; ++v) sums[q][v] = _mm512_setzero_ps();
#pragma GCC unroll 16  // compilers move sums from register to register at the end of a loop
        for (int pair = 0; pair < HEAD_DIM / 2; ++pair) {
            block.ahead.ask_for_keys(pair);
            __m512i keys[KEY_VECTORS];
            for (int v = 0; v < KEY_VECTORS; ++v) keys[v] = _mm512_load_si512(block.keys[v][pair]);
            for (int q = 0; q < QUERIES; ++q) {
                const __m512i query = spread(own[q].values + 2 * pair);
                for (int v = 0; v < KEY_VECTORS; ++v) sums[q][v] = add_pairs(sums[q][v], keys[v], query);
            }
        }
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < KEY_VECTORS; ++v) scores[q][v] = _mm512_mul_ps(sums[q][v], factor());
    }

    // Of the softmax, to the base 2.
    static inline __m512 factor() { return _mm512_set1_ps(LOG2_E / sqrtf(static_cast<float>(HEAD_DIM))); }

    static inline void round_weights(const __m512 (&wide)[KEY_VECTORS], const Block&, Weights& weights) {
        for (int v = 0; v < KEY_VECTORS; ++v)
            _mm256_store_si256(
                reinterpret_cast<__m256i*>(weights.values + v * LANES),
                reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(wide[v])));
    }

    template <int QUERIES>
    static inline void add_values(Query* own, const Block& block, const Weights (&weights)[QUERIES]) {
        __m512 sums[QUERIES][VECTORS];
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < VECTORS; ++v)
                sums[q][v] = _mm512_mul_ps(_mm512_load_ps(own[q].sums + v * LANES), _mm512_set1_ps(weights[q].shrink));
#pragma GCC unroll 16
        for (int pair = 0; pair < KEY_BLOCK / 2; ++pair) {
            block.ahead.template ask_for_values<HEAD_DIM>(pair);
            __m512i two[QUERIES];
            for (int q = 0; q < QUERIES; ++q) two[q] = spread(weights[q].values + 2 * pair);
            for (int v = 0; v < VECTORS; ++v) {
                const __m512i values = _mm512_load_si512(block.values[pair][v]);
                for (int q = 0; q < QUERIES; ++q) sums[q][v] = add_pairs(sums[q][v], values, two[q]);
            }
        }
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < VECTORS; ++v) _mm512_store_ps(own[q].sums + v * LANES, sums[q][v]);
    }
};

#if defined(__AMX_BF16__)
#include "tile_halves.h"
#else
template <int HEAD_DIM>
using Best = Halves<HEAD_DIM>;
#endif

}  // namespace

void attend_halves(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    switch (layer.head_dim) {
#define PHI4_CASE(size) \
    case size: return attend_all<Best<size>, bf16>(layer, segments, num_segments, threads);
        PHI4_FOR_EACH_HEAD_DIM(PHI4_CASE)
#undef PHI4_CASE
    }
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
