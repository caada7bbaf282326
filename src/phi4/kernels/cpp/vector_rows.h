// Rows of bytes times unpacked weights in vectors: some rows and blocks of outputs at a time, whose sums are in registers.
// Included by unpacked.h.

// ROWS x BLOCKS sums over some groups, from the first of a span on, added to `results`: [rows, BLOCKS, 16].
template <int ROWS, int BLOCKS>
void add_tile(
    const ByteRows& rows, int64_t row, int64_t first_group, int64_t last_group, const uint8_t* const* values,
    Ahead<BLOCKS>& ahead, float* results) {
    const int64_t groups = rows.groups;
    int64_t place = 0;
    for (int64_t first = first_group; first < last_group; first += SPAN_GROUPS) {
        const int64_t end = first + SPAN_GROUPS < last_group ? first + SPAN_GROUPS : last_group;
        int32_t offsets[ROWS] = {};
        for (int64_t group = first; group < end; ++group)
            for (int r = 0; r < ROWS; ++r) offsets[r] += rows.offsets[row * groups + group * ROWS + r];
        Sixteen sums[ROWS][BLOCKS];
        for (int r = 0; r < ROWS; ++r)
            for (int b = 0; b < BLOCKS; ++b) sums[r][b] = all(offsets[r]);
        for (int64_t group = first; group < end; ++group, place += GROUP_BYTES) {
            ahead.ask();
            const int8_t* inputs = rows.values + (row * groups + group * ROWS) * GROUP_INPUTS;
#pragma GCC unroll 8
            for (int quad = 0; quad < QUADS; ++quad) {
                Codes weights[BLOCKS];
                for (int b = 0; b < BLOCKS; ++b) weights[b] = load_codes(values[b] + place + quad * CODE_BYTES);
                for (int r = 0; r < ROWS; ++r) {
                    const int32_t own = four_inputs(inputs + r * GROUP_INPUTS + quad * 4);
                    for (int b = 0; b < BLOCKS; ++b) sums[r][b] = add_any(sums[r][b], weights[b], own);
                }
            }
        }
        const float* scales = rows.scales + row * spans_of(groups) + first / SPAN_GROUPS * ROWS;
        for (int r = 0; r < ROWS; ++r)
            for (int b = 0; b < BLOCKS; ++b) {
                float* total = results + (r * BLOCKS + b) * BLOCK_OUTPUTS;
                store_floats(total, add_scaled(load_floats(total), sums[r][b], scales[r]));
            }
    }
}

template <int BLOCKS>
void add_chunk(
    const ByteRows& rows, int64_t row, int64_t last_row, int64_t group, int64_t last_group,
    const uint8_t* const* values, Ahead<BLOCKS>& ahead, float* results) {
    constexpr int STRIDE = BLOCKS * BLOCK_OUTPUTS;
    for (; row + TILE_ROWS <= last_row; row += TILE_ROWS, results += TILE_ROWS * STRIDE)
        add_tile<TILE_ROWS, BLOCKS>(rows, row, group, last_group, values, ahead, results);
    switch (last_row - row) {
        case 7: return add_tile<7, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 6: return add_tile<6, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 5: return add_tile<5, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 4: return add_tile<4, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 3: return add_tile<3, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 2: return add_tile<2, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 1: return add_tile<1, BLOCKS>(rows, row, group, last_group, values, ahead, results);
    }
}
