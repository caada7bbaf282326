// Many rows: some weights are unpacked to 8 bits once and stay in the first-level cache while all rows pass by.
// Included into the namespace of a level that multiplies bytes of any size.

// From this many rows on, unpacking pays.
constexpr int64_t UNPACKED_FROM_ROWS = 2;
// Groups of a block that are unpacked together: 8 KB.
constexpr int64_t CHUNK_GROUPS = 16;
constexpr int GROUP_BYTES = QUADS * CODE_BYTES;

// Codes of 4 bits become step * code + lowest, which fits a byte.
inline void unpack_group(const uint8_t* codes, const uint8_t* steps, uint8_t* values) {
    const __m512i step = _mm512_mullo_epi32(widen_bytes(steps).lanes, _mm512_set1_epi32(0x00010001));
    const __m512i lowest = _mm512_mullo_epi32(widen_bytes(steps + BLOCK_OUTPUTS).lanes, _mm512_set1_epi32(0x01010101));
    for (int quad = 0; quad < QUADS; quad += 2) {
        const Codes both = load_codes(codes + quad / 2 * CODE_BYTES);
        const Codes halves[] = {low_half(both), high_half(both)};
        for (int half = 0; half < 2; ++half) {
            // Two codes in 16 bits are multiplied at once: nothing is carried, since step * code is below 256.
            const __m512i products = _mm512_mullo_epi16(halves[half], step);
            _mm512_storeu_si512(values + (quad + half) * CODE_BYTES, _mm512_add_epi8(products, lowest));
        }
    }
}

// Where the codes of the next chunk are. The processor does not see them coming while rows pass by, and all at once they
// would be more than it can wait for: the first rows ask for those of a group at a time.
template <int BLOCKS>
struct Ahead {
    const uint8_t* codes[BLOCKS];
    const uint8_t* steps[BLOCKS];
    int64_t group_bytes;  // of codes

    void ask(int64_t group) const {
        for (int b = 0; b < BLOCKS; ++b) {
            for (int64_t byte = 0; byte < group_bytes; byte += 64)
                __builtin_prefetch(codes[b] + group * group_bytes + byte, 0, 2);
            __builtin_prefetch(steps[b] + group * 2 * BLOCK_OUTPUTS, 0, 2);
        }
    }
};

// ROWS x BLOCKS sums over some groups, added to `results`: [rows, BLOCKS, 16].
template <int ROWS, int BLOCKS>
void add_tile(
    const ByteRows& rows, int64_t row, int64_t first_group, int64_t last_group, const uint8_t* const* values,
    const Ahead<BLOCKS>* ahead, float* results) {
    const int64_t groups = rows.groups;
    Floats totals[ROWS][BLOCKS];
    for (int r = 0; r < ROWS; ++r)
        for (int b = 0; b < BLOCKS; ++b) totals[r][b] = load_floats(results + (r * BLOCKS + b) * BLOCK_OUTPUTS);
    for (int64_t group = first_group, place = 0; group < last_group; ++group, place += GROUP_BYTES) {
        if (ahead != nullptr) ahead->ask(group - first_group);
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
    const uint8_t* const* values, const Ahead<BLOCKS>* ahead, float* results) {
    constexpr int STRIDE = BLOCKS * BLOCK_OUTPUTS;
    for (; row + TILE_ROWS <= last_row; row += TILE_ROWS, results += TILE_ROWS * STRIDE, ahead = nullptr)
        add_tile<TILE_ROWS, BLOCKS>(rows, row, group, last_group, values, ahead, results);
    switch (last_row - row) {
        case 5: return add_tile<5, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 4: return add_tile<4, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 3: return add_tile<3, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 2: return add_tile<2, BLOCKS>(rows, row, group, last_group, values, ahead, results);
        case 1: return add_tile<1, BLOCKS>(rows, row, group, last_group, values, ahead, results);
    }
}

// BLOCKS neighbouring blocks of outputs for at most BLOCK_ROWS rows.
template <int BLOCKS>
void multiply_unpacked(const QuantisedProduct& product, int64_t row, int64_t last_row, int64_t block) {
    const int64_t groups = product.rows.groups;
    const bool four_bits = product.steps != nullptr;
    const int64_t code_bytes = four_bits ? GROUP_BYTES / 2 : GROUP_BYTES;
    alignas(64) uint8_t unpacked[BLOCKS][CHUNK_GROUPS * GROUP_BYTES];
    alignas(64) float results[BLOCK_ROWS * BLOCKS * BLOCK_OUTPUTS];
    std::memset(results, 0, (last_row - row) * BLOCKS * BLOCK_OUTPUTS * sizeof(float));
    for (int64_t group = 0; group < groups; group += CHUNK_GROUPS) {
        const int64_t last_group = group + CHUNK_GROUPS < groups ? group + CHUNK_GROUPS : groups;
        const uint8_t* values[BLOCKS];
        Ahead<BLOCKS> ahead = {{}, {}, code_bytes};
        for (int b = 0; b < BLOCKS; ++b) {
            const int64_t place = (block + b) * groups + group;
            // Behind the last chunk come the next blocks of outputs; what is asked for behind the end is not fetched.
            const int64_t next = last_group < groups ? place + CHUNK_GROUPS : (block + BLOCKS + b) * groups;
            ahead.codes[b] = product.codes + next * code_bytes;
            ahead.steps[b] = four_bits ? product.steps + next * 2 * BLOCK_OUTPUTS : ahead.codes[b];
            values[b] = four_bits ? unpacked[b] : product.codes + place * GROUP_BYTES;
            for (int64_t n = 0; four_bits && n < last_group - group; ++n)
                unpack_group(
                    product.codes + (place + n) * code_bytes, product.steps + (place + n) * 2 * BLOCK_OUTPUTS,
                    unpacked[b] + n * GROUP_BYTES);
        }
        add_chunk<BLOCKS>(product.rows, row, last_row, group, last_group, values, &ahead, results);
    }
    for (int64_t r = row; r < last_row; ++r)
        for (int b = 0; b < BLOCKS; ++b)
            finish(product, r, block + b, load_floats(results + ((r - row) * BLOCKS + b) * BLOCK_OUTPUTS));
}
