// Rows times a transposed weight matrix of bf16 in the processor's tiles, for one row and for thousands.
//
// The weights are read as they are stored: 16 outputs and 32 inputs of them fill a tile. The rows are packed in pairs of
// inputs, 16 rows beside each other. A result is summed over 32 inputs at a time, in their order, by itself: how many rows
// there are, what stands in them, and the number of threads change no bit.

#include "linear.h"

#include <immintrin.h>

#include <cstdlib>
#include <cstring>

#include "allocate.h"
#include "packed.h"
#include "team.h"

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "tiles.h"

// Inputs that are multiplied at once, and the values of a tile of them.
constexpr int STEP_INPUTS = 32;
constexpr int64_t TILE_VALUES = TILE_SIDE * STEP_INPUTS;
// Results that are summed at the same time: two tiles of outputs for at most two of rows.
constexpr int OUTPUT_TILES = 2;
constexpr int ROW_TILES = 2;
constexpr int64_t BLOCK_OUTPUTS = OUTPUT_TILES * TILE_SIDE;
// Rows that share one pass over a block's weights.
constexpr int64_t BLOCK_ROWS = 256;
// Weights are asked for so many inputs before they are needed.
constexpr int64_t AHEAD_INPUTS = 512;

inline int64_t tiles_of(int64_t count, int64_t each) { return (count + each - 1) / each; }

// All rows, zeros behind the last one and behind the last input: [tiles, steps, 16 pairs of inputs, 16 rows, 2].
uint16_t* pack_all(const Product& product, int threads) {
    const int64_t steps = tiles_of(product.inputs, STEP_INPUTS), tiles = tiles_of(product.num_rows, TILE_SIDE);
    auto* packed = static_cast<uint16_t*>(allocate(tiles * steps * TILE_VALUES * sizeof(uint16_t)));
    share(threads, tiles, [&](int64_t tile) {
        uint16_t* own = packed + tile * steps * TILE_VALUES;
        std::memset(own + (steps - 1) * TILE_VALUES, 0, TILE_VALUES * sizeof(uint16_t));
        pack_rows(
            static_cast<const uint16_t*>(product.rows) + tile * TILE_SIDE * product.row_stride, product.row_stride,
            product.num_rows - tile * TILE_SIDE, product.inputs, own, 2 * TILE_SIDE);
    });
    return packed;
}

// Where a tile of weights is: in the matrix, or, at its edges, among zeros.
struct Weights {
    const uint16_t* values;
    int64_t row_bytes;
};

// Where `fresh`, the weights come from memory, and more of them than the processor sees coming.
inline Weights weights_at(const Product& product, int64_t output, int64_t input, bool fresh, uint16_t* edge) {
    const int64_t inputs = product.inputs - input, outputs = product.outputs - output;
    const auto* values = static_cast<const uint16_t*>(product.weights) + output * product.inputs + input;
    if (inputs >= STEP_INPUTS && outputs >= TILE_SIDE) {
        for (int64_t n = 0; fresh && inputs > AHEAD_INPUTS && n < TILE_SIDE; ++n)
            __builtin_prefetch(values + n * product.inputs + AHEAD_INPUTS);
        return {values, product.inputs * static_cast<int64_t>(sizeof(uint16_t))};
    }
    std::memset(edge, 0, TILE_VALUES * sizeof(uint16_t));
    for (int64_t n = 0; n < TILE_SIDE && n < outputs; ++n)
        std::memcpy(
            edge + n * STEP_INPUTS, values + n * product.inputs,
            (inputs < STEP_INPUTS ? inputs : STEP_INPUTS) * sizeof(uint16_t));
    return {edge, TILE_ROW_BYTES};
}

// Sums of 16 outputs for 16 rows become results of those that there are.
void finish(const Product& product, const float* sums, int64_t row, int64_t output) {
    __m512i lanes[TILE_SIDE];
    for (int n = 0; n < TILE_SIDE; ++n) lanes[n] = _mm512_loadu_si512(sums + n * TILE_SIDE);
    transpose(lanes);
    const int64_t count = product.outputs - output;
    for (int64_t n = 0; n < TILE_SIDE && row + n < product.num_rows; ++n) {
        uint16_t* results = static_cast<uint16_t*>(product.results) + (row + n) * product.result_stride + output;
        __m512 own = _mm512_castsi512_ps(lanes[n]);
        if (product.add) own = _mm512_add_ps(own, load_some(results, count));
        store_some(results, own, count);
    }
}

// A block of outputs for TILES tiles of rows. Tiles 0 to 3 are sums, 4 and 5 weights, 6 and 7 rows.
template <int TILES>
void multiply_tiles(const Product& product, const uint16_t* packed, int64_t row, int64_t output, bool fresh) {
    const int64_t steps = tiles_of(product.inputs, STEP_INPUTS);
    const uint16_t* rows = packed + row / TILE_SIDE * steps * TILE_VALUES;
    alignas(64) uint16_t edges[OUTPUT_TILES][TILE_VALUES];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < steps; ++step, rows += TILE_VALUES) {
        const Weights first = weights_at(product, output, step * STEP_INPUTS, fresh, edges[0]);
        const Weights second = weights_at(product, output + TILE_SIDE, step * STEP_INPUTS, fresh, edges[1]);
        Tiles::written();
        _tile_loadd(4, first.values, first.row_bytes);
        _tile_loadd(5, second.values, second.row_bytes);
        _tile_loadd(6, rows, TILE_ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        if (TILES > 1) {
            _tile_loadd(7, rows + steps * TILE_VALUES, TILE_ROW_BYTES);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    alignas(64) float sums[ROW_TILES][OUTPUT_TILES][TILE_SIDE * TILE_SIDE];
    _tile_stored(0, sums[0][0], TILE_ROW_BYTES);
    _tile_stored(1, sums[0][1], TILE_ROW_BYTES);
    _tile_stored(2, sums[1][0], TILE_ROW_BYTES);
    _tile_stored(3, sums[1][1], TILE_ROW_BYTES);
    for (int r = 0; r < TILES; ++r)
        for (int o = 0; o < OUTPUT_TILES; ++o) finish(product, sums[r][o], row + r * TILE_SIDE, output + o * TILE_SIDE);
}

void multiply_all(const Product& product, const uint16_t* packed, int threads) {
    TileShapes shapes;
    for (int tile = 0; tile < NUM_TILES; ++tile) shapes.set(tile, TILE_SIDE, TILE_ROW_BYTES);
    const int64_t output_blocks = tiles_of(product.outputs, BLOCK_OUTPUTS);
    const int64_t row_blocks = tiles_of(product.num_rows, BLOCK_ROWS);
    with_threads(threads, row_blocks * output_blocks, [&](Items& items) {
        const Tiles tiles(shapes);
        for_each(items, [&](int64_t item) {
            const int64_t output = item % output_blocks * BLOCK_OUTPUTS, first = item / output_blocks * BLOCK_ROWS;
            const int64_t last = first + BLOCK_ROWS < product.num_rows ? first + BLOCK_ROWS : product.num_rows;
            int64_t row = first;
            for (; row + TILE_SIDE < last; row += ROW_TILES * TILE_SIDE)
                multiply_tiles<ROW_TILES>(product, packed, row, output, row == first);
            if (row < last) multiply_tiles<1>(product, packed, row, output, row == first);
        });
    });
}

}  // namespace

void multiply(const Product& product, int threads) {
    // Tiles take pairs of inputs. An order of sums must depend on nothing but the number of inputs.
    if (!product.bf16 || product.inputs % 2 != 0) return avx512_bf16::multiply(product, threads);
    if (product.num_rows == 0) return;
    uint16_t* packed = pack_all(product, threads);
    multiply_all(product, packed, threads);
    std::free(packed);
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
