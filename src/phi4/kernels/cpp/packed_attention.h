// Causal attention that packs a block of keys once for many queries, whatever keys and values are stored as: a Kind says
// how they are packed and multiplied, and how many queries at a time. A Scope lives while it does. Included into the namespace of a level with AVX-512.
//
// Blocks are counted from the beginning of a conversation, and nothing else enters a query's sums: neither the other rows
// of a step, nor how a prompt was cut, nor the number of threads changes a bit.

#include "attention_tiles.h"
#include "transpose.h"

// Tokens of a tile; with a group of heads each, their queries pass over a block of keys that was packed once.
constexpr int QUERY_TOKENS = 64;
// Queries whose sums are in registers together.
constexpr int QUERIES_TOGETHER = 3;
constexpr int LANES = 16;
constexpr int KEY_VECTORS = KEY_BLOCK / LANES;
constexpr int CHUNK_BYTES = 64;  // of a head, in a register
constexpr float LOG2_E = 1.44269504f;

// Of kinds that need nothing while they multiply.
struct NoScope {};

// What one query knows after the keys so far; a Kind adds the query itself.
template <int VECTORS>
struct Sums {
    alignas(64) float sums[VECTORS * LANES];  // of values, weighted, in the order of the Kind's `dimension_of`
    float weight;                             // sum of the weights
    float highest;                            // score
    int64_t history;                          // keys that it sees
};

// 64 bytes of a head of HEAD_BYTES, zeros behind its end.
template <int HEAD_BYTES>
inline __m512i load_chunk(const void* head, int chunk) {
    constexpr int REST = HEAD_BYTES % CHUNK_BYTES;
    const char* source = static_cast<const char*>(head) + chunk * CHUNK_BYTES;
    if (REST != 0 && chunk == HEAD_BYTES / CHUNK_BYTES)
        return _mm512_maskz_loadu_epi8((uint64_t{1} << REST) - 1, source);
    return _mm512_loadu_si512(source);
}

// Sixteen keys beside each other, four bytes of each in a lane, with some bits turned; zeros behind the last key.
template <int HEAD_BYTES>
inline void pack_sixteen_keys(
    const void* keys, const int64_t* slots, int64_t count, __m512i turned, uint8_t (*packed)[4 * LANES]) {
    for (int chunk = 0; chunk * CHUNK_BYTES < HEAD_BYTES; ++chunk) {
        __m512i rows[LANES];
        for (int n = 0; n < LANES; ++n) {
            rows[n] = _mm512_setzero_si512();
            if (n < count)
                rows[n] = load_chunk<HEAD_BYTES>(static_cast<const char*>(keys) + slots[n] * HEAD_BYTES, chunk);
            rows[n] = _mm512_xor_si512(rows[n], turned);
        }
        transpose(rows);
        for (int n = 0; n < LANES && chunk * LANES + n < HEAD_BYTES / 4; ++n)
            _mm512_store_si512(packed[chunk * LANES + n], rows[n]);
    }
}

// Asks for what stands KEY_BLOCK slots behind: the next block, where slots are neighbours.
inline void ask_for_next(const void* stored, int64_t slot_bytes, const int64_t* slots, int64_t count) {
    const char* start = static_cast<const char*>(stored);
    for (int64_t n = 0; n < count; ++n)
        for (int64_t byte = 0; byte < slot_bytes; byte += 64)
            __builtin_prefetch(start + (slots[n] + KEY_BLOCK) * slot_bytes + byte, 0, 2);
}

// What comes behind a block of keys and values. A few queries ask for it while they multiply, a little at a time: their
// products take no longer than its way from memory, and all at once would be more than the processor can wait for.
struct Ahead {
    const char* keys;
    const char* values;
    int64_t bytes;  // of keys, and as many of values; 0 asks for none

    // In the order in which keys are multiplied, four bytes of all of them at a time.
    void ask_for_keys(int column) const { ask<4 * KEY_BLOCK>(keys, column); }

    // In the order in which values are multiplied, those of a register of weights at a time.
    template <int HEAD_DIM>
    void ask_for_values(int row) const {
        ask<4 * HEAD_DIM>(values, row);
    }

private:
    template <int BYTES>
    void ask(const char* start, int64_t part) const {
        if (part * BYTES >= bytes) return;
        for (int64_t byte = 0; byte < BYTES; byte += 64) __builtin_prefetch(start + part * BYTES + byte, 0, 3);
    }
};

// The same four bytes in every lane.
inline __m512i spread(const void* source) {
    int32_t four;
    std::memcpy(&four, source, sizeof four);
    return _mm512_set1_epi32(four);
}

// 2^x for x <= 0 with a relative error below 3e-6.
inline __m512 power_of_two(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 rest = _mm512_sub_ps(x, whole);
    __m512 power = _mm512_set1_ps(1.33335581e-3f);
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(9.61812911e-3f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(5.55041087e-2f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(2.40226507e-1f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(6.93147181e-1f));
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(power, whole);
}

// Turns the scores of the first `seen` keys, to the base 2, into weights, and those of the others into 0. Returns what the
// sums so far are multiplied by.
template <int VECTORS>
inline float weigh(
    Sums<VECTORS>& own, const __m512 (&scores)[KEY_VECTORS], int64_t seen, __m512 (&weights)[KEY_VECTORS]) {
    __mmask16 masks[KEY_VECTORS];
    __m512 highest = _mm512_set1_ps(own.highest);
    for (int v = 0; v < KEY_VECTORS; ++v) {
        const int64_t rest = seen - v * LANES;
        masks[v] = rest >= LANES ? 0xffff : rest <= 0 ? 0 : (1 << rest) - 1;
        highest = _mm512_mask_max_ps(highest, masks[v], highest, scores[v]);
    }
    const float top = _mm512_reduce_max_ps(highest);
    __m512 sum = _mm512_setzero_ps();
    for (int v = 0; v < KEY_VECTORS; ++v) {
        const __m512 power = power_of_two(_mm512_sub_ps(scores[v], _mm512_set1_ps(top)));
        weights[v] = _mm512_maskz_mov_ps(masks[v], power);
        sum = _mm512_add_ps(sum, weights[v]);
    }
    const __m512 lower = _mm512_set1_ps(own.highest - top);
    const float shrink = own.highest == -INFINITY ? 0.0f : _mm512_cvtss_f32(power_of_two(lower));
    own.weight = own.weight * shrink + _mm512_reduce_add_ps(sum);
    own.highest = top;
    return shrink;
}

// Lets some queries see the first keys of a block, `keys` at most. All of them see at least one.
template <typename Kind, int QUERIES>
void add_block(typename Kind::Query* own, const typename Kind::Block& block, int64_t start, int64_t keys) {
    __m512 scores[QUERIES][KEY_VECTORS];
    Kind::template score<QUERIES>(own, block, scores);
    typename Kind::Weights weights[QUERIES];
    for (int q = 0; q < QUERIES; ++q) {
        const int64_t seen = own[q].history - start;
        __m512 wide[KEY_VECTORS];
        weights[q].shrink = weigh(own[q], scores[q], seen < keys ? seen : keys, wide);
        Kind::round_weights(wide, block, weights[q]);
    }
    Kind::template add_values<QUERIES>(own, block, weights);
}

template <typename Kind, typename T>
void finish(const typename Kind::Query& own, T* out) {
    const float share = 1.0f / own.weight;
    float sums[Kind::VECTORS * LANES];
    for (int vector = 0; vector < Kind::VECTORS; ++vector)
        for (int lane = 0; lane < LANES; lane += 4)  // four lanes hold neighbouring dimensions
            std::memcpy(sums + Kind::dimension_of(vector, lane), own.sums + vector * LANES + lane, 4 * sizeof(float));
    for (int d = 0; d < Kind::HEAD_DIM; ++d) narrow(sums[d] * share, out + d);
}

// Some neighbouring tokens of a conversation, all query heads of one key head.
template <typename Kind, typename T>
void attend_tile(const Layer& layer, const Segment& segment, int64_t first, int64_t tokens, int kv_head) {
    using Query = typename Kind::Query;
    const int group = layer.heads / layer.kv_heads;
    const int64_t num_queries = tokens * group;
    [[maybe_unused]] const typename Kind::Scope scope;
    const Kind stored(layer, kv_head * layer.slots);
    auto* queries = static_cast<Query*>(allocate(num_queries * sizeof(Query)));
    for (int64_t n = 0; n < num_queries; ++n) {
        const int64_t token = first + n / group;
        Kind::begin(
            static_cast<const T*>(layer.queries) + (segment.row + token) * layer.query_stride +
                (kv_head * group + n % group) * Kind::HEAD_DIM,
            queries[n]);
        std::memset(queries[n].sums, 0, sizeof queries[n].sums);
        queries[n].weight = 0.0f;
        queries[n].highest = -INFINITY;
        queries[n].history = segment.cached + token + 1;
    }
    const int64_t history = segment.cached + first + tokens;
    typename Kind::Block block;
    int64_t slots[KEY_BLOCK];
    for (int64_t start = 0; start < history; start += KEY_BLOCK) {
        const int64_t keys = start + KEY_BLOCK < history ? KEY_BLOCK : history - start;
        find_slots(segment, start, start + keys, slots);
        stored.pack(slots, keys, block);
        const bool few = num_queries <= QUERIES_TOGETHER, more = start + KEY_BLOCK < history;
        // Behind the only block of a head comes that of the next head.
        const bool known = more || (keys == history && kv_head + 1 < layer.kv_heads);
        const int64_t next = (slots[0] + (more ? KEY_BLOCK : layer.slots)) * Kind::HEAD_DIM;
        const int64_t head_bytes = Kind::HEAD_DIM * sizeof(*stored.keys);
        block.ahead = {reinterpret_cast<const char*>(stored.keys + next),
                       reinterpret_cast<const char*>(stored.values + next), few && known ? keys * head_bytes : 0};
        if (!few && more) {
            ask_for_next(stored.keys, head_bytes, slots, keys);
            ask_for_next(stored.values, head_bytes, slots, keys);
        }
        int64_t n = 0;
        while (n < num_queries && queries[n].history <= start) ++n;
        for (; n + Kind::MOST_QUERIES <= num_queries; n += Kind::MOST_QUERIES)
            add_block<Kind, Kind::MOST_QUERIES>(queries + n, block, start, keys);
        for (; n + QUERIES_TOGETHER <= num_queries; n += QUERIES_TOGETHER)
            add_block<Kind, QUERIES_TOGETHER>(queries + n, block, start, keys);
        for (; n < num_queries; ++n) add_block<Kind, 1>(queries + n, block, start, keys);
    }
    for (int64_t n = 0; n < num_queries; ++n) {
        const int64_t row = segment.row + first + n / group;
        finish<Kind>(
            queries[n],
            static_cast<T*>(layer.outputs) + (row * layer.heads + kv_head * group + n % group) * Kind::HEAD_DIM);
    }
    std::free(queries);
}

template <typename Kind, typename T>
void attend_all(const Layer& layer, const Segment* segments, int64_t num_segments, int threads) {
    for_each_tile(
        layer, segments, num_segments, QUERY_TOKENS, threads,
        [&](const Segment& segment, int64_t first, int64_t tokens, int kv_head) {
            attend_tile<Kind, T>(layer, segment, first, tokens, kv_head);
        });
}
