// Queries, keys and values of bytes in the processor's tiles, 16 queries at a time; fewer stay in vectors, since whole numbers
// have the same sums there. Included by byte_attention.cpp.

#include "tiles.h"

template <int HEAD_DIM>
struct TileBytes : Bytes<HEAD_DIM> {
    using Base = Bytes<HEAD_DIM>;
    using typename Base::Block;
    using typename Base::Query;
    using typename Base::Weights;
    using Base::Base;
    using Base::GROUP;
    using Base::VECTORS;
    static constexpr int MOST_QUERIES = TILE_SIDE;

    // Tile 0 holds sums, 1 and 2 queries and keys of a group, 3 and 4 weights and values of a block.
    struct Scope {
        static constexpr TileShapes shapes() {
            TileShapes shapes;
            shapes.set(0, TILE_SIDE, TILE_ROW_BYTES);
            shapes.set(1, TILE_SIDE, GROUP);
            shapes.set(2, GROUP / 4, TILE_ROW_BYTES);
            shapes.set(3, TILE_SIDE, KEY_BLOCK);
            shapes.set(4, KEY_BLOCK / 4, TILE_ROW_BYTES);
            return shapes;
        }
        const Tiles tiles{shapes()};
    };

    // Sums of 16 queries, as tiles are stored.
    typedef __m512i WholeSums[TILE_SIDE];

    template <int QUERIES>
    static inline void score(const Query* own, const Block& block, __m512 (&scores)[QUERIES][KEY_VECTORS]) {
        if constexpr (QUERIES != TILE_SIDE) return Base::template score<QUERIES>(own, block, scores);
        for (int group = 0; group < Base::GROUPS; ++group)
            for (int v = 0; v < KEY_VECTORS; ++v) {
                WholeSums sums;
                Tiles::written();
                _tile_zero(0);
                _tile_loadd(1, own->values + group * GROUP, sizeof(Query));
                _tile_loadd(2, block.keys[v][group * GROUP / 4], TILE_ROW_BYTES);
                _tile_dpbsud(0, 1, 2);
                _tile_stored(0, sums, TILE_ROW_BYTES);
                const __m512 scales = _mm512_load_ps(block.key_scales[group] + v * LANES);
                for (int q = 0; q < QUERIES; ++q) {
                    const __m512i whole = _mm512_add_epi32(sums[q], _mm512_set1_epi32(own[q].offsets[group]));
                    scores[q][v] = Base::add_group(scores[q][v], group, whole, scales, own[q].scales[group]);
                }
            }
    }

    template <int QUERIES>
    static inline void add_values(Query* own, const Block& block, const Weights (&weights)[QUERIES]) {
        if constexpr (QUERIES != TILE_SIDE) return Base::template add_values<QUERIES>(own, block, weights);
        for (int v = 0; v < VECTORS; ++v) {
            WholeSums sums;
            Tiles::written();
            _tile_zero(0);
            _tile_loadd(3, weights[0].bytes, sizeof(Weights));
            _tile_loadd(4, block.values[0][v], sizeof block.values[0]);
            _tile_dpbusd(0, 3, 4);
            _tile_stored(0, sums, TILE_ROW_BYTES);
            for (int q = 0; q < QUERIES; ++q) Base::add_weighted(own[q].sums + v * LANES, sums[q], weights[q]);
        }
    }
};

template <int HEAD_DIM>
using Best = TileBytes<HEAD_DIM>;
