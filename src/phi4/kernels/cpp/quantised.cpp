// Rows of 8-bit numbers times a weight matrix of 4 or 8 bits, for one row and for thousands.
//
// A weight is scale[output] * value, where value is a whole number of 8 bits: the code itself less 128, or, of codes of
// 4 bits, step * code + lowest - 128 with a step and a lowest value for each group of 32 inputs. Rows have a scale for each
// span of four groups. Inside a span all sums are whole numbers, which no order changes; the sums of the spans are added up
// in their order, with a product and a sum that are rounded each (the build forbids to fuse them). So a row has the same
// bits in any company, for any number of threads and at every level, and the same as in plain torch.

#include "quantised.h"

#include <cmath>
#include <cstring>

#include "team.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "bytes.h"
#include "rounding.h"
#include "ending.h"
#if defined(__AMX_INT8__)
#include "tiles.h"
#endif

constexpr int QUADS = GROUP_INPUTS / 4;
constexpr int CODE_BYTES = 4 * BLOCK_OUTPUTS;
constexpr int32_t MIDDLE = 128;
// Codes are asked for this long before they are needed.
constexpr int AHEAD_BYTES = 2048;
// Rows that are multiplied together: their sums are in registers.
#if defined(__AMX_INT8__)
constexpr int TILE_ROWS = TILE_SIDE;
#elif defined(__AVX512VNNI__)
constexpr int TILE_ROWS = 8;
#else
constexpr int TILE_ROWS = 4;
#endif
// Rows that share one pass over a block's weights: whole tiles.
constexpr int64_t BLOCK_ROWS = 256 / TILE_ROWS * TILE_ROWS;
// With fewer, rounding them takes no longer than calling a second thread.
constexpr int64_t ROWS_FOR_THREADS = 9;

inline int32_t four_inputs(const int8_t* source) {
    int32_t four;
    std::memcpy(&four, source, sizeof four);
    return four;
}

template <typename Source>
uint32_t largest_of_groups(const Source& source, int64_t first, int64_t end) {
    // A whole span stands without gaps, unless zeros fill its last group.
    const auto* start = source(first);
    if (first + SPAN_GROUPS == end && source(end - 1) == start + SPAN_INPUTS - GROUP_INPUTS)
        return largest_bits<SPAN_INPUTS>(start);
    uint32_t largest = 0;
    for (int64_t group = first; group < end; ++group) {
        const uint32_t bits = largest_bits<GROUP_INPUTS>(source(group));
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

template <typename T>
void quantise_all(const T* rows, int64_t row_stride, const ByteRows& quantised, int threads) {
    const int64_t groups = quantised.groups;
    share(quantised.num_rows >= ROWS_FOR_THREADS ? threads : 1, quantised.num_rows, [&](int64_t row) {
        const int64_t tile = row / TILE_ROWS * TILE_ROWS, rest = quantised.num_rows - tile;
        const int64_t tile_rows = rest < TILE_ROWS ? rest : TILE_ROWS;
        T last[GROUP_INPUTS] = {};
        if (quantised.missing > 0)
            std::memcpy(
                last, rows + row * row_stride + (groups - 1) * GROUP_INPUTS,
                (GROUP_INPUTS - quantised.missing) * sizeof(T));
        const auto source = [&](int64_t group) {
            const bool filled = group == groups - 1 && quantised.missing > 0;
            return filled ? last : rows + row * row_stride + group * GROUP_INPUTS;
        };
        for (int64_t span = 0; span < spans_of(groups); ++span) {
            const int64_t first = span * SPAN_GROUPS, end = first + SPAN_GROUPS < groups ? first + SPAN_GROUPS : groups;
            const Rounding rounding = rounding_of(largest_of_groups(source, first, end));
            quantised.scales[tile * spans_of(groups) + span * tile_rows + row - tile] = rounding.scale;
            for (int64_t group = first; group < end; ++group) {
                const int64_t place = tile * groups + group * tile_rows + row - tile;
                const int32_t total =
                    round_numbers<GROUP_INPUTS>(source(group), rounding, quantised.values + place * GROUP_INPUTS);
                quantised.offsets[place] = -MIDDLE * total;
            }
        }
    });
}

// Sixteen results of one row, from sums that lack the outputs' scales.
inline void finish(const QuantisedProduct& product, int64_t row, int64_t block, Floats sums) {
    Floats results = times(sums, load_floats(product.scales + block * BLOCK_OUTPUTS));
    const int64_t place = (row * product.blocks + block) * BLOCK_OUTPUTS;
    if (product.ending != nullptr)
        results = end_block(*product.ending, product.bf16, results, place, block * BLOCK_OUTPUTS);
    if (product.bf16)
        store_narrow(static_cast<bf16*>(product.results) + place, results);
    else
        store_floats(static_cast<float*>(product.results) + place, results);
}

// Adds one group of codes of 4 bits, for each row: sixteen whole numbers.
template <int ROWS>
inline void add_group_of_four(
    const QuantisedProduct& product, int64_t row, int64_t block, int64_t group, Sixteen (&sums)[ROWS]) {
    const int64_t groups = product.rows.groups, place = block * groups + group, at = row * groups + group * ROWS;
    const uint8_t* codes = product.codes + place * (QUADS / 2) * CODE_BYTES;
    const int8_t* inputs = product.rows.values + at * GROUP_INPUTS;
    Sixteen of_codes[ROWS];
    for (int r = 0; r < ROWS; ++r) of_codes[r] = all(0);
    for (int quad = 0; quad < QUADS; quad += 2) {
        const Codes both = load_codes(codes + quad / 2 * CODE_BYTES);
        __builtin_prefetch(codes + quad / 2 * CODE_BYTES + AHEAD_BYTES);
        const Codes low = low_half(both), high = high_half(both);
        for (int r = 0; r < ROWS; ++r) {
            const int8_t* own = inputs + r * GROUP_INPUTS + quad * 4;
            of_codes[r] = add_small(of_codes[r], low, four_inputs(own));
            of_codes[r] = add_small(of_codes[r], high, four_inputs(own + 4));
        }
    }
    const uint8_t* steps = product.steps + place * 2 * BLOCK_OUTPUTS;
    __builtin_prefetch(steps + AHEAD_BYTES / 8);
    const Sixteen step = widen_bytes(steps), lowest = minus(widen_bytes(steps + BLOCK_OUTPUTS), all(MIDDLE));
    for (int r = 0; r < ROWS; ++r) {
        const int32_t total = -(product.rows.offsets[at + r] / MIDDLE);
        sums[r] = plus(sums[r], plus(times(step, of_codes[r]), times(lowest, all(total))));
    }
}

// The same of codes of 8 bits.
template <int ROWS>
inline void add_group_of_eight(
    const QuantisedProduct& product, int64_t row, int64_t block, int64_t group, Sixteen (&sums)[ROWS]) {
    const int64_t groups = product.rows.groups, at = row * groups + group * ROWS;
    const uint8_t* codes = product.codes + (block * groups + group) * QUADS * CODE_BYTES;
    const int8_t* inputs = product.rows.values + at * GROUP_INPUTS;
    for (int r = 0; r < ROWS; ++r) sums[r] = plus(sums[r], all(product.rows.offsets[at + r]));
    for (int quad = 0; quad < QUADS; ++quad) {
        const Codes both = load_codes(codes + quad * CODE_BYTES);
        __builtin_prefetch(codes + quad * CODE_BYTES + AHEAD_BYTES);
#if defined(__AVX512VNNI__)
        for (int r = 0; r < ROWS; ++r)
            sums[r] = add_any(sums[r], both, four_inputs(inputs + r * GROUP_INPUTS + quad * 4));
#else
        const Codes low = low_half(both), high = high_half(both);
        for (int r = 0; r < ROWS; ++r) {
            const int32_t own = four_inputs(inputs + r * GROUP_INPUTS + quad * 4);
            sums[r] = add_small(sums[r], low, own);
            sums[r] = plus(sums[r], times_sixteen(add_small(all(0), high, own)));
        }
#endif
    }
}

// All groups of BLOCKS blocks of outputs that stand so far apart, for ROWS rows, read as they are stored. Two blocks are
// two places in memory that are read at the same time.
template <int ROWS, int BLOCKS, bool FOUR_BITS>
void multiply_tile(const QuantisedProduct& product, int64_t row, int64_t block, int64_t apart) {
    const int64_t groups = product.rows.groups;
    Floats results[BLOCKS][ROWS];
    for (int b = 0; b < BLOCKS; ++b)
        for (int r = 0; r < ROWS; ++r) results[b][r] = no_floats();
    for (int64_t span = 0; span < spans_of(groups); ++span) {
        const int64_t first = span * SPAN_GROUPS, end = first + SPAN_GROUPS < groups ? first + SPAN_GROUPS : groups;
        const float* scales = product.rows.scales + row * spans_of(groups) + span * ROWS;
        Sixteen sums[BLOCKS][ROWS];
        for (int b = 0; b < BLOCKS; ++b)
            for (int r = 0; r < ROWS; ++r) sums[b][r] = all(0);
        for (int64_t group = first; group < end; ++group)
            for (int b = 0; b < BLOCKS; ++b) {
                if (FOUR_BITS)
                    add_group_of_four(product, row, block + b * apart, group, sums[b]);
                else
                    add_group_of_eight(product, row, block + b * apart, group, sums[b]);
            }
        for (int b = 0; b < BLOCKS; ++b)
            for (int r = 0; r < ROWS; ++r) results[b][r] = add_scaled(results[b][r], sums[b][r], scales[r]);
    }
    for (int b = 0; b < BLOCKS; ++b)
        for (int r = 0; r < ROWS; ++r) finish(product, row + r, block + b * apart, results[b][r]);
}

template <int BLOCKS, bool FOUR_BITS>
void multiply_stored(const QuantisedProduct& product, int64_t row, int64_t last_row, int64_t block, int64_t apart) {
#if !defined(__AVX512VNNI__)
    for (; row + TILE_ROWS <= last_row; row += TILE_ROWS)
        multiply_tile<TILE_ROWS, BLOCKS, FOUR_BITS>(product, row, block, apart);
#endif
    switch (last_row - row) {
        case 3: return multiply_tile<3, BLOCKS, FOUR_BITS>(product, row, block, apart);
        case 2: return multiply_tile<2, BLOCKS, FOUR_BITS>(product, row, block, apart);
        case 1: return multiply_tile<1, BLOCKS, FOUR_BITS>(product, row, block, apart);
    }
}

template <int BLOCKS>
void multiply_some(const QuantisedProduct& product, int64_t row, int64_t last_row, int64_t block, int64_t apart) {
    if (product.steps != nullptr)
        multiply_stored<BLOCKS, true>(product, row, last_row, block, apart);
    else
        multiply_stored<BLOCKS, false>(product, row, last_row, block, apart);
}

#if defined(__AVX512VNNI__)
#include "unpacked.h"
#endif

void multiply_blocks(const QuantisedProduct& product, int64_t row, int64_t last_row, int64_t block, int64_t last_block) {
#if defined(__AVX512VNNI__)
    if (last_row - row >= UNPACKED_FROM_ROWS) {
#if defined(__AMX_INT8__)
        const Tiles tiles(shapes_for(product.rows.num_rows));
#endif
        for (; block + 2 <= last_block; block += 2) multiply_unpacked<2>(product, row, last_row, block);
        if (block < last_block) multiply_unpacked<1>(product, row, last_row, block);
        return;
    }
#endif
    // Each of the two places goes on where it ends with one block: what was asked for ahead is the beginning of the next.
    const int64_t half = (last_block - block) / 2;
    for (int64_t n = 0; n < half; ++n) multiply_some<2>(product, row, last_row, block + n, half);
    if (2 * half < last_block - block) multiply_some<1>(product, row, last_row, last_block - 1, 0);
}

// The even number below a count, 2 at least: of blocks, two are multiplied together.
inline int64_t even(int64_t count) { return count < 4 ? 2 : count / 2 * 2; }

}  // namespace

void quantise_rows(const void* rows, int64_t row_stride, bool is_bf16, const ByteRows& quantised, int threads) {
    if (is_bf16)
        quantise_all(static_cast<const bf16*>(rows), row_stride, quantised, threads);
    else
        quantise_all(static_cast<const float*>(rows), row_stride, quantised, threads);
}

void multiply_quantised(const QuantisedProduct& product, int threads) {
    // Each thread takes some blocks at a time, long enough to read on; of the last ones fewer, so that none waits long for
    // another.
    const int64_t some = even(product.blocks / (8 * threads)), few = even(some / 16);
    const int64_t shares_of_some = product.blocks > threads * some ? product.blocks / some - threads : 0;
    const int64_t first_of_few = shares_of_some * some;
    const int64_t shares = shares_of_some + (product.blocks - first_of_few + few - 1) / few;
    const int64_t row_blocks = (product.rows.num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    share(threads, shares * row_blocks, [&](int64_t item) {
        const int64_t own = item % shares, row = item / shares * BLOCK_ROWS, behind = own - shares_of_some;
        const int64_t block = behind < 0 ? own * some : first_of_few + behind * few;
        const int64_t last_block = block + (behind < 0 ? some : few);
        const int64_t last_row = row + BLOCK_ROWS;
        multiply_blocks(
            product, row, last_row < product.rows.num_rows ? last_row : product.rows.num_rows, block,
            last_block < product.blocks ? last_block : product.blocks);
    });
}

int largest_value(const uint8_t* steps, int64_t places) {
    int largest = 0;
    for (int64_t place = 0; place < places; ++place) {
        const uint8_t* own = steps + place * 2 * BLOCK_OUTPUTS;
        for (int n = 0; n < BLOCK_OUTPUTS; ++n) {
            const int value = own[n] * 15 + own[BLOCK_OUTPUTS + n];
            largest = value > largest ? value : largest;
        }
    }
    return largest;
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
