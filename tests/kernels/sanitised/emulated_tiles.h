// The processor's tiles in plain C++, for processors without them: included before everything else when a source is compiled
// for tiles. What a processor would refuse ends the program. After Intel's description of the instructions (Software
// Developer's Manual, volume 2: LDTILECFG, TILELOADD, TDPBSSD and its kind, TDPBF16PS).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulated {

constexpr int NUM_TILES = 8, MOST_ROWS = 16, MOST_ROW_BYTES = 64;

struct Tile {
    int rows, row_bytes;
    uint8_t values[MOST_ROWS][MOST_ROW_BYTES];
};

// Empty where no shapes were loaded.
inline thread_local Tile tiles[NUM_TILES] = {};

inline void require(bool met, const char* what) {
    if (met) return;
    std::printf("the processor would refuse: %s\n", what);
    std::abort();
}

inline Tile& tile_at(int number) {
    Tile& tile = tiles[number];
    require(tile.rows > 0, "a tile without a shape");
    return tile;
}

inline void load_shapes(const void* shapes) {
    uint8_t bytes[64];
    std::memcpy(bytes, shapes, sizeof bytes);
    require(bytes[0] == 1 && bytes[1] == 0, "another palette than the first, or another first row");
    for (int n = 2; n < 16; ++n) require(bytes[n] == 0, "reserved bytes of the shapes are not zero");
    for (int n = 0; n < 16; ++n) {
        uint16_t row_bytes;
        std::memcpy(&row_bytes, bytes + 16 + 2 * n, sizeof row_bytes);
        const int rows = bytes[48 + n];
        require(n < NUM_TILES || (rows == 0 && row_bytes == 0), "a shape of a ninth tile");
        require(rows <= MOST_ROWS && row_bytes <= MOST_ROW_BYTES, "a shape that is too large");
        require((rows == 0) == (row_bytes == 0), "a tile of rows without bytes");
        if (n < NUM_TILES) tiles[n] = {rows, row_bytes, {}};
    }
}

inline void release() { std::memset(tiles, 0, sizeof tiles); }

inline void zero(int number) { std::memset(tile_at(number).values, 0, sizeof(Tile::values)); }

// Rows and bytes that the shape lacks become zeros.
inline void load(int number, const void* source, int64_t stride) {
    zero(number);
    Tile& tile = tile_at(number);
    for (int row = 0; row < tile.rows; ++row)
        std::memcpy(tile.values[row], static_cast<const uint8_t*>(source) + row * stride, tile.row_bytes);
}

inline void store(int number, void* target, int64_t stride) {
    const Tile& tile = tile_at(number);
    for (int row = 0; row < tile.rows; ++row)
        std::memcpy(static_cast<uint8_t*>(target) + row * stride, tile.values[row], tile.row_bytes);
}

template <typename Value>
Value value_at(const Tile& tile, int row, int place) {
    Value value;
    std::memcpy(&value, tile.values[row] + place * sizeof value, sizeof value);
    return value;
}

template <typename Value>
void set_value(Tile& tile, int row, int place, Value value) {
    std::memcpy(tile.values[row] + place * sizeof value, &value, sizeof value);
}

struct Operands {
    Tile& sums;
    const Tile& rows;
    const Tile& columns;
    int words;  // of 32 bits that are multiplied for a sum
};

inline Operands operands(int sums, int rows, int columns) {
    require(sums != rows && rows != columns && sums != columns, "one tile twice");
    const Operands own{tile_at(sums), tile_at(rows), tile_at(columns), tile_at(rows).row_bytes / 4};
    require(own.sums.row_bytes % 4 == 0 && own.rows.row_bytes % 4 == 0, "rows of broken words");
    require(own.sums.rows == own.rows.rows && own.sums.row_bytes == own.columns.row_bytes, "sums of another shape");
    require(own.columns.rows == own.words, "rows and columns of different lengths");
    return own;
}

template <typename Row, typename Column>
void multiply_bytes(int sums, int rows, int columns) {
    const Operands own = operands(sums, rows, columns);
    for (int m = 0; m < own.sums.rows; ++m)
        for (int n = 0; n < own.sums.row_bytes / 4; ++n) {
            int32_t sum = value_at<int32_t>(own.sums, m, n);
            for (int k = 0; k < own.words; ++k)
                for (int byte = 0; byte < 4; ++byte)
                    sum += value_at<Row>(own.rows, m, 4 * k + byte) * value_at<Column>(own.columns, k, 4 * n + byte);
            set_value(own.sums, m, n, sum);
        }
}

inline float half_at(const Tile& tile, int row, int place) {
    const uint32_t bits = static_cast<uint32_t>(value_at<uint16_t>(tile, row, place)) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Numbers too small to be normal, which the processor takes for zero, do not occur here.
inline void multiply_halves(int sums, int rows, int columns) {
    const Operands own = operands(sums, rows, columns);
    for (int m = 0; m < own.sums.rows; ++m)
        for (int n = 0; n < own.sums.row_bytes / 4; ++n) {
            float parts[2] = {0.0f, 0.0f};
            for (int k = 0; k < own.words; ++k)
                for (int half = 0; half < 2; ++half)
                    parts[half] += half_at(own.rows, m, 2 * k + half) * half_at(own.columns, k, 2 * n + half);
            set_value(own.sums, m, n, value_at<float>(own.sums, m, n) + (parts[0] + parts[1]));
        }
}

}  // namespace emulated

#define _tile_loadconfig emulated::load_shapes
#define _tile_release emulated::release
#undef _tile_zero
#define _tile_zero emulated::zero
#undef _tile_loadd
#define _tile_loadd emulated::load
#undef _tile_stored
#define _tile_stored emulated::store
#undef _tile_dpbssd
#define _tile_dpbssd (emulated::multiply_bytes<int8_t, int8_t>)
#undef _tile_dpbsud
#define _tile_dpbsud (emulated::multiply_bytes<int8_t, uint8_t>)
#undef _tile_dpbusd
#define _tile_dpbusd (emulated::multiply_bytes<uint8_t, int8_t>)
#undef _tile_dpbf16ps
#define _tile_dpbf16ps emulated::multiply_halves
