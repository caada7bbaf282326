// Attention of encoders: all scores of a few queries, their softmax, and the weighted sum of all values.
//
// Keys behind a sequence's own, which a bias of -inf hides, weigh exactly 0: they change no bit.

#include <cmath>
#include <cstdlib>

#include "allocate.h"
#include "encoder.h"
#include "packed.h"
#include "team.h"

namespace phi4 {
namespace {

constexpr int64_t KEYS = TILE_VECTORS * LANES;

inline int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// 2^x with a relative error below 2e-4, a tenth of what rounding to bf16 adds; 0 below -150, NaN stays NaN.
inline __m512 power_of_two(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
    const __m512 r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(0.05500847f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24220984f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69328285f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

// One head of one sequence, packed, and room for the scores of a tile of queries.
struct Head {
    const FullAttention& own;
    int64_t sequence;
    int64_t head;
    int64_t keys;             // as many as the sequence has, and zeros up to whole tiles
    int64_t width;            // of a head, rounded up to whole vectors
    const uint16_t* packed_keys;    // [keys / 64, head_dim / 2, 64 pairs]
    const uint16_t* packed_values;  // [keys / 2, width pairs]
    float* scores;            // [TILE_ROWS, keys]
    uint16_t* weights;        // [TILE_ROWS, keys]

    const uint16_t* query(int64_t position) const {
        return static_cast<const uint16_t*>(own.queries) + (sequence * own.length + position) * own.row_stride +
               head * own.head_dim;
    }

    // Turns the scores of a query into bf16 weights; returns what their sum is to be divided by.
    float weigh(int64_t position, float* scored, uint16_t* weighed) const {
        const uint16_t* bias = own.bias == nullptr ? nullptr
                                                   : static_cast<const uint16_t*>(own.bias) +
                                                         sequence * own.bias_sequence_stride +
                                                         head * own.bias_head_stride + position * own.bias_query_stride;
        // Powers of two take fewer steps than those of e.
        constexpr float LOG2_E = 1.44269504f;
        const __m512 scale = _mm512_set1_ps(LOG2_E / sqrtf(static_cast<float>(own.head_dim)));
        __m512 highest = _mm512_set1_ps(-INFINITY);
        for (int64_t key = 0; key < own.length; key += LANES) {
            const __mmask16 inside = first_lanes(own.length - key);
            __m512 score = _mm512_mul_ps(_mm512_loadu_ps(scored + key), scale);
            if (bias != nullptr)
                score = _mm512_fmadd_ps(load_some(bias + key, own.length - key), _mm512_set1_ps(LOG2_E), score);
            score = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), inside, score);
            _mm512_storeu_ps(scored + key, score);
            highest = _mm512_max_ps(highest, score);
        }
        const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
        __m512 sum = _mm512_setzero_ps();
        for (int64_t key = 0; key < own.length; key += LANES) {
            const __m512 weight = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scored + key), top));
            sum = _mm512_add_ps(sum, weight);
            store_some(weighed + key, weight, LANES);
        }
        return _mm512_reduce_add_ps(sum);
    }
};

// The queries of one tile.
struct Tile {
    const Head& head;
    int64_t position;

    template <int ROWS>
    void tile() const {
        const FullAttention& own = head.own;
        for (int64_t key = 0; key < head.keys; key += KEYS) {
            __m512 sums[ROWS][TILE_VECTORS];
            sum_tile<ROWS, TILE_VECTORS>(
                head.query(position), own.row_stride, head.packed_keys + key * own.head_dim, 2 * KEYS,
                own.head_dim / 2, sums);
            for (int r = 0; r < ROWS; ++r)
                for (int v = 0; v < TILE_VECTORS; ++v)
                    _mm512_storeu_ps(head.scores + r * head.keys + key + v * LANES, sums[r][v]);
        }
        float totals[ROWS];
        for (int r = 0; r < ROWS; ++r)
            totals[r] = head.weigh(position + r, head.scores + r * head.keys, head.weights + r * head.keys);
        int64_t d = 0;
        for (; d + 4 * LANES <= head.width; d += 4 * LANES) sum_values<ROWS, 4>(d, totals);
        switch ((head.width - d) / LANES) {
            case 3: return sum_values<ROWS, 3>(d, totals);
            case 2: return sum_values<ROWS, 2>(d, totals);
            case 1: return sum_values<ROWS, 1>(d, totals);
        }
    }

    template <int ROWS, int VECTORS>
    void sum_values(int64_t d, const float (&totals)[ROWS]) const {
        const FullAttention& own = head.own;
        __m512 sums[ROWS][VECTORS];
        sum_tile<ROWS, VECTORS>(
            head.weights, head.keys, head.packed_values + 2 * d, 2 * head.width, (own.length + 1) / 2, sums);
        for (int r = 0; r < ROWS; ++r) {
            uint16_t* results = static_cast<uint16_t*>(own.results) +
                                ((head.sequence * own.length + position + r) * own.heads + head.head) * own.head_dim;
            for (int v = 0; v < VECTORS; ++v)
                store_some(
                    results + d + v * LANES, _mm512_mul_ps(sums[r][v], _mm512_set1_ps(1.0f / totals[r])),
                    own.head_dim - d - v * LANES);
        }
    }
};

// Packs values so that two neighbouring keys stand in a lane: [keys / 2, width, 2].
void pack_values(const uint16_t* values, int64_t row_stride, int64_t length, int64_t head_dim, int64_t width, uint16_t* packed) {
    for (int64_t key = 0; key < length; key += 2)
        for (int64_t d = 0; d < width; d += LANES) {
            const __mmask16 inside = first_lanes(head_dim - d);
            const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(inside, values + key * row_stride + d));
            const __mmask16 there = key + 1 < length ? inside : 0;
            const __m512i odd =
                _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, values + (key + 1) * row_stride + d));
            _mm512_storeu_si512(packed + key * width + 2 * d, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
}

}  // namespace

void attend_fully(const FullAttention& own, int threads) {
    const int64_t keys = round_up(own.length, KEYS), width = round_up(own.head_dim, LANES);
    with_threads(threads, own.sequences * own.heads, [&](Items& items) {
        auto* packed_keys = static_cast<uint16_t*>(allocate(keys * own.head_dim * sizeof(uint16_t)));
        auto* packed_values = static_cast<uint16_t*>(allocate(keys * width * sizeof(uint16_t)));
        auto* scores = static_cast<float*>(allocate(TILE_ROWS * keys * sizeof(float)));
        auto* weights = static_cast<uint16_t*>(allocate(TILE_ROWS * keys * sizeof(uint16_t)));
        for_each(items, [&](int64_t item) {
            const int64_t sequence = item / own.heads, head = item % own.heads;
            const int64_t start = sequence * own.length * own.row_stride + head * own.head_dim;
            const auto* own_keys = static_cast<const uint16_t*>(own.keys) + start;
            for (int64_t key = 0; key < keys; key += LANES)
                pack_rows(
                    own_keys + key * own.row_stride, own.row_stride, own.length - key, own.head_dim,
                    packed_keys + key / KEYS * KEYS * own.head_dim + key % KEYS * 2, 2 * KEYS);
            pack_values(
                static_cast<const uint16_t*>(own.values) + start, own.row_stride, own.length, own.head_dim, width,
                packed_values);
            const Head packed{own, sequence, head, keys, width, packed_keys, packed_values, scores, weights};
            for (int64_t position = 0; position < own.length; position += TILE_ROWS) {
                const int64_t rest = own.length - position;
                with_rows(rest < TILE_ROWS ? rest : TILE_ROWS, Tile{packed, position});
            }
        });
        std::free(packed_keys);
        std::free(packed_values);
        std::free(scores);
        std::free(weights);
    });
}

}  // namespace phi4
