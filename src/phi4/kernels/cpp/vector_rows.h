// Rows of bytes times unpacked weights in vectors: some rows and blocks of outputs at a time, whose sums are in registers.
// Included by unpacked.h.

// ROWS x BLOCKS sums over some groups, added to `results`: [rows, BLOCKS, 16].
template <int ROWS, int BLOCKS>
void add_tile(
    const ByteRows& rows, int64_t row, int64_t first_group, int64_t last_group, const uint8_t* const* values,
    Ahead<BLOCKS>& ahead, float* results) {
    const int64_t groups = rows.groups;
    Floats totals[ROWS][BLOCKS];
    for (int r = 0; r < ROWS; ++r)
        for (int b = 0; b < BLOCKS; ++b) totals[r][b] = load_floats(results + (r * BLOCKS + b) * BLOCK_OUTPUTS);
    for (int64_t group = first_group, place = 0; group < last_group; ++group, place += GROUP_BYTES) {
        ahead.ask();
        const int64_t at = row * groups + group * ROWS;
        Sixteen sums[ROWS][BLOCKS];
        for (int r = 0; r < ROWS; ++r) {
            const Sixteen offset = all(rows.offsets[at + r]);
            for (int b = 0; b < BLOCKS; ++b) sums[r][b] = offset;
        }
        const int8_t* inputs = rows.values + at * GROUP_INPUTS;
        for (int quad = 0; quad < QUADS; ++quad) {
            Codes weights[BLOCKS];
            for (int b = 0; b < BLOCKS; ++b) weights[b] = load_codes(values[b] + place + quad * CODE_BYTES);
            for (int r = 0; r < ROWS; ++r) {
                const int32_t own = four_inputs(inputs + r * GROUP_INPUTS + quad * 4);
                for (int b = 0; b < BLOCKS; ++b) sums[r][b] = add_any(sums[r][b], weights[b], own);
            }
        }
        for (int r = 0; r < ROWS; ++r)
            for (int b = 0; b < BLOCKS; ++b)
                totals[r][b] = add_scaled(totals[r][b], sums[r][b], rows.scales[at + r]);
    }
    for (int r = 0; r < ROWS; ++r)
        for (int b = 0; b < BLOCKS; ++b) store_floats(results + (r * BLOCKS + b) * BLOCK_OUTPUTS, totals[r][b]);
}

template <int BLOCKS>
void add_chunk(
    const ByteRows& rows, int64_t row, int64_t last_row, int64_t group, int64_t last_group,
    const uint8_t* const* values, Ahead<BLOCKS>& ahead, float* results) {
    constexpr int STRIDE = BLOCKS * BLOCK_OUTPUTS;
    for (; row + TILE_ROWS <= last_row; row += TILE_ROWS, results += TILE_ROWS * STRIDE)
        add_tile<TILE_ROWS, BLOCKS>(rows, row, group, last_group, values, ahead, results);
    switch (last_row - row) {
        case 5: return add_tile<5, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 4: return add_tile<4, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 3: return add_tile<3, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 2: return add_tile<2, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 1: return add_tile<1, BLOCKS>(rows, row, group, last_group, values, ahead, results);
    }
}
