// A panel of packed weights times rows in the processor's tiles. Included by projection.cpp.

#include "tiles.h"

// Tiles 0 to 3 are sums, one for each vector of the panel; 4 rows and 5 weights; 6 and 7 the same of the last inputs, where
// those do not fill a tile.
inline TileShapes shapes_for(int64_t num_rows, int64_t inputs) {
    const int rows = static_cast<int>(num_rows), rest = static_cast<int>(inputs % (2 * TILE_SIDE));
    TileShapes shapes;
    for (int tile = 0; tile <= TILE_VECTORS; ++tile) shapes.set(tile, rows, TILE_ROW_BYTES);
    shapes.set(5, TILE_SIDE, TILE_ROW_BYTES);
    if (rest > 0) {
        shapes.set(6, rows, 2 * rest);
        shapes.set(7, rest / 2, TILE_ROW_BYTES);
    }
    return shapes;
}

// At most 16 rows, as the shapes say.
template <Activation ACTIVATION, bool GATED>
void project_tile(const Projection& own, const uint16_t* packed, int64_t row, int64_t count, int64_t output) {
    constexpr int64_t PAIR_BYTES = 2 * PANEL * sizeof(uint16_t);  // of the whole panel
    const uint16_t* rows = static_cast<const uint16_t*>(own.rows) + row * own.row_stride;
    const int64_t row_bytes = own.row_stride * static_cast<int64_t>(sizeof(uint16_t));
    const int64_t whole = own.inputs - own.inputs % (2 * TILE_SIDE);
    const auto weights = [=](int64_t input, int vector) { return packed + input * PANEL + vector * 2 * LANES; };
    Tiles::written();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t input = 0; input < whole; input += 2 * TILE_SIDE) {
        _tile_loadd(4, rows + input, row_bytes);
        _tile_loadd(5, weights(input, 0), PAIR_BYTES);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(5, weights(input, 1), PAIR_BYTES);
        _tile_dpbf16ps(1, 4, 5);
        _tile_loadd(5, weights(input, 2), PAIR_BYTES);
        _tile_dpbf16ps(2, 4, 5);
        _tile_loadd(5, weights(input, 3), PAIR_BYTES);
        _tile_dpbf16ps(3, 4, 5);
    }
    if (whole < own.inputs) {
        _tile_loadd(6, rows + whole, row_bytes);
        _tile_loadd(7, weights(whole, 0), PAIR_BYTES);
        _tile_dpbf16ps(0, 6, 7);
        _tile_loadd(7, weights(whole, 1), PAIR_BYTES);
        _tile_dpbf16ps(1, 6, 7);
        _tile_loadd(7, weights(whole, 2), PAIR_BYTES);
        _tile_dpbf16ps(2, 6, 7);
        _tile_loadd(7, weights(whole, 3), PAIR_BYTES);
        _tile_dpbf16ps(3, 6, 7);
    }
    __m512 sums[TILE_SIDE][TILE_VECTORS];
    _tile_stored(0, sums[0] + 0, sizeof sums[0]);
    _tile_stored(1, sums[0] + 1, sizeof sums[0]);
    _tile_stored(2, sums[0] + 2, sizeof sums[0]);
    _tile_stored(3, sums[0] + 3, sizeof sums[0]);
    finish<ACTIVATION, GATED>(own, sums, count, row, output);
}

template <Activation ACTIVATION, bool GATED>
void project_panel(const Projection& own, const uint16_t* packed, int64_t row, int64_t last, int64_t output) {
    if (last - row >= TILE_SIDE) {
        const Tiles tiles(shapes_for(TILE_SIDE, own.inputs));
        for (; row + TILE_SIDE <= last; row += TILE_SIDE)
            project_tile<ACTIVATION, GATED>(own, packed, row, TILE_SIDE, output);
    }
    if (row < last) {
        const Tiles tiles(shapes_for(last - row, own.inputs));
        project_tile<ACTIVATION, GATED>(own, packed, row, last - row, output);
    }
}
