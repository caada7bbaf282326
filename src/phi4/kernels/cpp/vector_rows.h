// Rows of bytes times weights in vectors: some rows and blocks of outputs at a time, whose sums are in registers. The first
// of these tiles unpacks codes of 4 bits on their way; the others find them unpacked. Included by unpacked.h.

// Weights of 8 bits, stored or unpacked.
template <int BLOCKS>
struct Ready {
    const uint8_t* const* weights;

    void begin_group(int64_t) {}

    void load(int64_t group, int quad, Codes (&both)[2][BLOCKS]) const {
        for (int half = 0; half < 2; ++half)
            for (int b = 0; b < BLOCKS; ++b)
                both[half][b] = load_codes(weights[b] + (group * QUADS + quad + half) * CODE_BYTES);
    }
};

// ROWS x BLOCKS sums over a chunk, added to `results`: [rows, BLOCKS, 16].
template <int ROWS, int BLOCKS, typename Weights>
void add_tile(
    const ByteRows& rows, int64_t row, const Chunk<BLOCKS>& chunk, Weights weights, Ahead<BLOCKS>& ahead, float* results) {
    const int64_t groups = rows.groups;
    for (int64_t first = chunk.first_group; first < chunk.last_group; first += SPAN_GROUPS) {
        const int64_t end = first + SPAN_GROUPS < chunk.last_group ? first + SPAN_GROUPS : chunk.last_group;
        int32_t offsets[ROWS] = {};
        for (int64_t group = first; group < end; ++group)
            for (int r = 0; r < ROWS; ++r) offsets[r] += rows.offsets[row * groups + group * ROWS + r];
        Sixteen sums[ROWS][BLOCKS];
        for (int r = 0; r < ROWS; ++r)
            for (int b = 0; b < BLOCKS; ++b) sums[r][b] = all(offsets[r]);
        for (int64_t group = first; group < end; ++group) {
            ahead.ask();
            weights.begin_group(group - chunk.first_group);
            const int8_t* inputs = rows.values + (row * groups + group * ROWS) * GROUP_INPUTS;
#pragma GCC unroll 4
            for (int quad = 0; quad < QUADS; quad += 2) {
                Codes both[2][BLOCKS];
                weights.load(group - chunk.first_group, quad, both);
#pragma GCC unroll 2
                for (int half = 0; half < 2; ++half)
                    for (int r = 0; r < ROWS; ++r) {
                        const int32_t own = four_inputs(inputs + r * GROUP_INPUTS + (quad + half) * 4);
                        for (int b = 0; b < BLOCKS; ++b) sums[r][b] = add_any(sums[r][b], both[half][b], own);
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

// A tile of any number of rows.
template <int BLOCKS, typename Weights>
void add_rows(
    const ByteRows& rows, int64_t row, int64_t count, const Chunk<BLOCKS>& chunk, const Weights& weights,
    Ahead<BLOCKS>& ahead, float* results) {
    switch (count) {
        case 8: return add_tile<8>(rows, row, chunk, weights, ahead, results);
        case 7: return add_tile<7>(rows, row, chunk, weights, ahead, results);
        case 6: return add_tile<6>(rows, row, chunk, weights, ahead, results);
        case 5: return add_tile<5>(rows, row, chunk, weights, ahead, results);
        case 4: return add_tile<4>(rows, row, chunk, weights, ahead, results);
        case 3: return add_tile<3>(rows, row, chunk, weights, ahead, results);
        case 2: return add_tile<2>(rows, row, chunk, weights, ahead, results);
        case 1: return add_tile<1>(rows, row, chunk, weights, ahead, results);
    }
}

template <int BLOCKS>
void add_chunk(
    const ByteRows& rows, int64_t row, int64_t last_row, const Chunk<BLOCKS>& chunk, Ahead<BLOCKS>& ahead,
    float* results) {
    static_assert(TILE_ROWS == 8, "add_rows knows so many");
    const bool four_bits = chunk.steps[0] != nullptr;
    const Ready<BLOCKS> ready{four_bits ? chunk.unpacked : chunk.codes};
    for (bool unpacked = !four_bits; row < last_row; row += TILE_ROWS, unpacked = true) {
        const int64_t count = last_row - row < TILE_ROWS ? last_row - row : TILE_ROWS;
        if (unpacked)
            add_rows(rows, row, count, chunk, ready, ahead, results);
        else
            add_rows(rows, row, count, chunk, Unpacking<BLOCKS>{chunk}, ahead, results);
        results += count * BLOCKS * BLOCK_OUTPUTS;
    }
}
