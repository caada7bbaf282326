// Many rows: some weights are unpacked to 8 bits once and stay in the first-level cache while all rows pass by.
// Included into the namespace of a level that multiplies bytes of any size, in vectors or in tiles.

// From this many rows on, unpacking pays.
constexpr int64_t UNPACKED_FROM_ROWS = 2;
constexpr int GROUP_BYTES = QUADS * CODE_BYTES;
// What unpacked weights are: of tiles the value itself, with its sign; of vectors the value + 128, which what is added to
// the sums takes away again. The two differ in the highest bit.
#if defined(__AMX_INT8__)
constexpr bool SIGNED = true;
#else
constexpr bool SIGNED = false;
#endif
constexpr int SIGN_BITS = SIGNED ? 0x80808080 : 0;
// Groups of a block that are unpacked together, 8 KB. Of vectors of few rows half of it, so that what comes next finds room
// beside them in the cache; of more, loading and storing results once more for each chunk takes longer.
constexpr int64_t CHUNK_GROUPS = 16;
constexpr int64_t FEW_ROWS = 32;
constexpr int64_t chunk_groups_for(int64_t rows) { return SIGNED || rows > FEW_ROWS ? CHUNK_GROUPS : CHUNK_GROUPS / 2; }
static_assert(CHUNK_GROUPS / 2 % SPAN_GROUPS == 0, "a chunk is whole spans");

// Brings what outputs have, a byte each, to all four of their inputs, or to the lower byte of every two.
struct Spread {
    alignas(64) uint8_t places[CODE_BYTES];

    constexpr explicit Spread(bool lower_only) : places() {
        for (int place = 0; place < CODE_BYTES; ++place) places[place] = lower_only && place % 2 == 1 ? 0x80 : place / 4;
    }

    __m512i operator()(const uint8_t* bytes) const {
        const __m512i everywhere = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
        return _mm512_shuffle_epi8(everywhere, _mm512_load_si512(places));
    }
};
constexpr Spread TO_INPUTS(false), TO_PAIRS(true);

// What a group's codes of 4 bits stand for: step * code + lowest, which fits a byte.
struct Meaning {
    __m512i step, lowest;

    void read(const uint8_t* steps) {
        step = TO_PAIRS(steps);
        lowest = _mm512_xor_si512(TO_INPUTS(steps + BLOCK_OUTPUTS), _mm512_set1_epi32(SIGN_BITS));
    }

    // Two codes in 16 bits are multiplied at once: nothing is carried, since step * code is below 256.
    Codes operator()(Codes codes) const { return _mm512_add_epi8(_mm512_mullo_epi16(codes, step), lowest); }
};

// Some groups of BLOCKS neighbouring blocks of outputs.
template <int BLOCKS>
struct Chunk {
    const uint8_t* codes[BLOCKS];
    const uint8_t* steps[BLOCKS];  // null for codes of 8 bits
    uint8_t* unpacked[BLOCKS];     // where there is room for their weights
    int64_t first_group, last_group;
};

// Unpacks the codes of 4 bits of a chunk, a group at a time.
template <int BLOCKS>
struct Unpacking {
    const Chunk<BLOCKS>& chunk;
    Meaning meanings[BLOCKS] = {};

    void begin_group(int64_t group) {
        for (int b = 0; b < BLOCKS; ++b) meanings[b].read(chunk.steps[b] + group * 2 * BLOCK_OUTPUTS);
    }

    // The weights of two neighbouring quads of a group, which stand unpacked from then on.
    void load(int64_t group, int quad, Codes (&weights)[2][BLOCKS]) const {
        for (int b = 0; b < BLOCKS; ++b) {
            const Codes both = load_codes(chunk.codes[b] + (group * QUADS + quad) / 2 * CODE_BYTES);
            weights[0][b] = meanings[b](low_half(both));
            weights[1][b] = meanings[b](high_half(both));
            for (int half = 0; half < 2; ++half)
                _mm512_store_si512(chunk.unpacked[b] + (group * QUADS + quad + half) * CODE_BYTES, weights[half][b]);
        }
    }
};

// Where the codes of the next chunk are. The processor does not see them coming while rows pass by, and all at once they
// would be more than it can wait for: tiles of rows ask for those of a group at a time, each for its share.
template <int BLOCKS>
struct Ahead {
    const uint8_t* codes[BLOCKS];
    const uint8_t* steps[BLOCKS];
    int64_t group_bytes;  // of codes
    int64_t tiles;        // that pass by: of so many groups, one asks
    int64_t passed = 0;

    void ask() {
        if (++passed < tiles) return;
        passed = 0;
        for (int b = 0; b < BLOCKS; ++b) {
            for (int64_t byte = 0; byte < group_bytes; byte += 64) __builtin_prefetch(codes[b] + byte, 0, 3);
            __builtin_prefetch(steps[b], 0, 3);
            codes[b] += group_bytes;
            steps[b] += 2 * BLOCK_OUTPUTS;
        }
    }
};

#if defined(__AMX_INT8__)
#include "tile_rows.h"
#else
#include "vector_rows.h"
#endif

// BLOCKS neighbouring blocks of outputs for at most BLOCK_ROWS rows.
template <int BLOCKS>
void multiply_unpacked(const QuantisedProduct& product, int64_t row, int64_t last_row, int64_t block) {
    const int64_t groups = product.rows.groups;
    const bool four_bits = product.steps != nullptr;
    const int64_t code_bytes = four_bits ? GROUP_BYTES / 2 : GROUP_BYTES;
    // Tiles of rows that pass by a chunk; in tiles, once for each block.
    const int64_t passes = (last_row - row + TILE_ROWS - 1) / TILE_ROWS * (SIGNED ? BLOCKS : 1);
    alignas(64) uint8_t unpacked[BLOCKS][CHUNK_GROUPS * GROUP_BYTES];
    alignas(64) float results[BLOCK_ROWS * BLOCKS * BLOCK_OUTPUTS];
    std::memset(results, 0, (last_row - row) * BLOCKS * BLOCK_OUTPUTS * sizeof(float));
    const int64_t chunk_groups = chunk_groups_for(last_row - row);
    for (int64_t group = 0; group < groups; group += chunk_groups) {
        const int64_t last_group = group + chunk_groups < groups ? group + chunk_groups : groups;
        Chunk<BLOCKS> chunk = {{}, {}, {}, group, last_group};
        Ahead<BLOCKS> ahead = {{}, {}, code_bytes, passes};
        for (int b = 0; b < BLOCKS; ++b) {
            const int64_t place = (block + b) * groups + group;
            chunk.codes[b] = product.codes + place * code_bytes;
            chunk.steps[b] = four_bits ? product.steps + place * 2 * BLOCK_OUTPUTS : nullptr;
            chunk.unpacked[b] = unpacked[b];
            // Behind the last chunk come the next blocks of outputs; what is asked for behind the end is not fetched.
            const int64_t next = last_group < groups ? place + chunk_groups : (block + BLOCKS + b) * groups;
            ahead.codes[b] = product.codes + next * code_bytes;
            ahead.steps[b] = four_bits ? product.steps + next * 2 * BLOCK_OUTPUTS : ahead.codes[b];
        }
        add_chunk<BLOCKS>(product.rows, row, last_row, chunk, ahead, results);
    }
    for (int64_t r = row; r < last_row; ++r)
        for (int b = 0; b < BLOCKS; ++b)
            finish(product, r, block + b, load_floats(results + ((r - row) * BLOCKS + b) * BLOCK_OUTPUTS));
}
