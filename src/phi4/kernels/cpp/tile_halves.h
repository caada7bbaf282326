// Queries, keys and values of bf16 in the processor's tiles. Included by half_attention.cpp.

#include "tiles.h"

// Whatever the number of queries is, tiles multiply them: 16, three, or one. A query's sums are then the same in each.
template <int HEAD_DIM>
struct TileHalves : Halves<HEAD_DIM> {
    using Base = Halves<HEAD_DIM>;
    using typename Base::Block;
    using typename Base::Query;
    using typename Base::Weights;
    using Base::Base;
    using Base::VECTORS;
    static constexpr int MOST_QUERIES = TILE_SIDE;
    static constexpr int STEP_PAIRS = TILE_SIDE;  // of dimensions or keys that are multiplied at once
    static_assert(HEAD_DIM % (2 * STEP_PAIRS) == 0);

    // Tile 0 holds keys or values; 1 and 2 are sums and queries or weights of 16 queries, 3 and 4 of three, 5 and 6 of one.
    struct Scope {
        static constexpr TileShapes shapes() {
            TileShapes shapes;
            shapes.set(0, STEP_PAIRS, TILE_ROW_BYTES);
            for (int n = 0; n < 2; ++n) {
                shapes.set(1 + n, TILE_SIDE, TILE_ROW_BYTES);
                shapes.set(3 + n, QUERIES_TOGETHER, TILE_ROW_BYTES);
                shapes.set(5 + n, 1, TILE_ROW_BYTES);
            }
            return shapes;
        }
        const Tiles tiles{shapes()};
    };

    // Adds products to sums: `rows` and `sums` of queries, `columns` packed; both strides in bytes.
    template <int QUERIES>
    static inline void add_products(
        const bf16* rows, int64_t row_bytes, const uint8_t* columns, int64_t pair_bytes, int steps, float* sums,
        int64_t sum_bytes) {
        static_assert(QUERIES == TILE_SIDE || QUERIES == QUERIES_TOGETHER || QUERIES == 1);
        Tiles::written();
        if (QUERIES == TILE_SIDE)
            _tile_loadd(1, sums, sum_bytes);
        else if (QUERIES == QUERIES_TOGETHER)
            _tile_loadd(3, sums, sum_bytes);
        else
            _tile_loadd(5, sums, sum_bytes);
        for (int step = 0; step < steps; ++step) {
            const bf16* own = rows + 2 * STEP_PAIRS * step;
            _tile_loadd(0, columns + STEP_PAIRS * pair_bytes * step, pair_bytes);
            if (QUERIES == TILE_SIDE) {
                _tile_loadd(2, own, row_bytes);
                _tile_dpbf16ps(1, 2, 0);
            } else if (QUERIES == QUERIES_TOGETHER) {
                _tile_loadd(4, own, row_bytes);
                _tile_dpbf16ps(3, 4, 0);
            } else {
                _tile_loadd(6, own, row_bytes);
                _tile_dpbf16ps(5, 6, 0);
            }
        }
        if (QUERIES == TILE_SIDE)
            _tile_stored(1, sums, sum_bytes);
        else if (QUERIES == QUERIES_TOGETHER)
            _tile_stored(3, sums, sum_bytes);
        else
            _tile_stored(5, sums, sum_bytes);
    }

    template <int QUERIES>
    static inline void score(const Query* own, const Block& block, __m512 (&scores)[QUERIES][KEY_VECTORS]) {
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < KEY_VECTORS; ++v) scores[q][v] = _mm512_setzero_ps();
        for (int v = 0; v < KEY_VECTORS; ++v)
            add_products<QUERIES>(
                own->values, sizeof(Query), block.keys[v][0], sizeof block.keys[v][0], HEAD_DIM / (2 * STEP_PAIRS),
                reinterpret_cast<float*>(&scores[0][v]), sizeof scores[0]);
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < KEY_VECTORS; ++v) scores[q][v] = _mm512_mul_ps(scores[q][v], Base::factor());
    }

    template <int QUERIES>
    static inline void add_values(Query* own, const Block& block, const Weights (&weights)[QUERIES]) {
        for (int q = 0; q < QUERIES; ++q)
            for (int v = 0; v < VECTORS; ++v) {
                float* sums = own[q].sums + v * LANES;
                _mm512_store_ps(sums, _mm512_mul_ps(_mm512_load_ps(sums), _mm512_set1_ps(weights[q].shrink)));
            }
        for (int v = 0; v < VECTORS; ++v)
            add_products<QUERIES>(
                weights[0].values, sizeof(Weights), block.values[0][v], sizeof block.values[0],
                KEY_BLOCK / (2 * STEP_PAIRS), own->sums + v * LANES, sizeof(Query));
    }
};

// Heads that do not fill a tile stay in vectors.
template <int HEAD_DIM>
struct Best : TileHalves<HEAD_DIM> {
    using TileHalves<HEAD_DIM>::TileHalves;
};
template <>
struct Best<16> : Halves<16> {
    using Halves<16>::Halves;
};
