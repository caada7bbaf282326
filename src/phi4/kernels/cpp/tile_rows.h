// Rows of bytes times unpacked weights in the processor's tiles: 16 rows, 16 outputs and a group of inputs at a time.
// Included behind tiles.h by unpacked.h.

// A span's sums are read when so many later spans have been multiplied: tiles answer late.
constexpr int SPANS_AHEAD = 2;

// Tiles 0 to 2 are the sums, rows and weights where all 16 rows are there; 3 and 4 the sums and the rows of the last
// tile, which has fewer.
inline TileShapes shapes_for(int64_t num_rows) {
    const int rest = static_cast<int>(num_rows % TILE_ROWS);
    TileShapes shapes;
    shapes.set(0, TILE_SIDE, TILE_ROW_BYTES);
    shapes.set(1, TILE_SIDE, GROUP_INPUTS);
    shapes.set(2, QUADS, CODE_BYTES);
    if (rest > 0) {
        shapes.set(3, rest, TILE_ROW_BYTES);
        shapes.set(4, rest, GROUP_INPUTS);
    }
    return shapes;
}

// The sums of some groups, whose rows stand `count` by `count`.
template <bool FULL, int BLOCKS>
inline void multiply_span(
    const int8_t* rows, const uint8_t* weights, int64_t groups, int64_t count, Ahead<BLOCKS>& ahead, int32_t* sums) {
    if (FULL)
        _tile_zero(0);
    else
        _tile_zero(3);
    for (int64_t group = 0; group < groups; ++group) {
        ahead.ask();
        _tile_loadd(2, weights + group * GROUP_BYTES, CODE_BYTES);
        if (FULL) {
            _tile_loadd(1, rows + group * count * GROUP_INPUTS, GROUP_INPUTS);
            _tile_dpbssd(0, 1, 2);
        } else {
            _tile_loadd(4, rows + group * count * GROUP_INPUTS, GROUP_INPUTS);
            _tile_dpbssd(3, 4, 2);
        }
    }
    if (FULL)
        _tile_stored(0, sums, TILE_ROW_BYTES);
    else
        _tile_stored(3, sums, TILE_ROW_BYTES);
}

// `count` rows of one block of outputs over some groups, from the first of a span on, added to `results`: [rows, BLOCKS,
// 16]. Where FULL, there are 16 rows.
template <bool FULL, int BLOCKS>
void add_tile(
    const ByteRows& rows, int64_t row, int64_t count, int64_t first_group, int64_t last_group, const uint8_t* weights,
    Ahead<BLOCKS>& ahead, float* results) {
    constexpr int STRIDE = BLOCKS * BLOCK_OUTPUTS;
    constexpr int PLACES = SPANS_AHEAD + 1;
    alignas(64) int32_t sums[PLACES][TILE_ROWS * BLOCK_OUTPUTS];
    Floats totals[TILE_ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < TILE_ROWS; ++r)
        if (FULL || r < count) totals[r] = load_floats(results + r * STRIDE);
    const int64_t num_groups = last_group - first_group, num_spans = spans_of(num_groups);
    const float* first_scales = rows.scales + row * spans_of(rows.groups) + first_group / SPAN_GROUPS * count;
    for (int64_t span = 0; span < num_spans + SPANS_AHEAD; ++span) {
        if (span < num_spans) {
            const int64_t group = span * SPAN_GROUPS, rest = num_groups - group;
            multiply_span<FULL>(
                rows.values + (row * rows.groups + (first_group + group) * count) * GROUP_INPUTS,
                weights + group * GROUP_BYTES, rest < SPAN_GROUPS ? rest : SPAN_GROUPS, count, ahead,
                sums[span % PLACES]);
        }
        if (span < SPANS_AHEAD) continue;
        const int32_t* done = sums[(span - SPANS_AHEAD) % PLACES];
        const float* scales = first_scales + (span - SPANS_AHEAD) * count;
#pragma GCC unroll 16
        for (int r = 0; r < TILE_ROWS; ++r)
            if (FULL || r < count)
                totals[r] = add_scaled(totals[r], {_mm512_load_si512(done + r * BLOCK_OUTPUTS)}, scales[r]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < TILE_ROWS; ++r)
        if (FULL || r < count) store_floats(results + r * STRIDE, totals[r]);
}

// Weights as tiles take them, with their sign.
template <int BLOCKS>
void unpack(const Chunk<BLOCKS>& chunk) {
    const int64_t groups = chunk.last_group - chunk.first_group;
    if (chunk.steps[0] == nullptr) {
        const __m512i sign = _mm512_set1_epi32(SIGN_BITS);
        for (int b = 0; b < BLOCKS; ++b)
            for (int64_t place = 0; place < groups * GROUP_BYTES; place += CODE_BYTES)
                _mm512_store_si512(
                    chunk.unpacked[b] + place, _mm512_xor_si512(load_codes(chunk.codes[b] + place), sign));
        return;
    }
    Unpacking<BLOCKS> unpacking{chunk};
    for (int64_t group = 0; group < groups; ++group) {
        unpacking.begin_group(group);
        for (int quad = 0; quad < QUADS; quad += 2) {
            Codes weights[2][BLOCKS];
            unpacking.load(group, quad, weights);
        }
    }
}

template <int BLOCKS>
void add_chunk(
    const ByteRows& rows, int64_t row, int64_t last_row, const Chunk<BLOCKS>& chunk, Ahead<BLOCKS>& ahead,
    float* results) {
    constexpr int STRIDE = BLOCKS * BLOCK_OUTPUTS;
    unpack(chunk);
    Tiles::written();
    for (; row < last_row; row += TILE_ROWS, results += TILE_ROWS * STRIDE) {
        const int64_t count = last_row - row < TILE_ROWS ? last_row - row : TILE_ROWS;
        const auto add = count == TILE_ROWS ? add_tile<true, BLOCKS> : add_tile<false, BLOCKS>;
        for (int b = 0; b < BLOCKS; ++b)
            add(rows, row, count, chunk.first_group, chunk.last_group, chunk.unpacked[b], ahead,
                results + b * BLOCK_OUTPUTS);
    }
}
