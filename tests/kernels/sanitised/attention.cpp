// Rounding of cached bytes, and attention over caches of numbers and of bytes.

#include "attention.h"

#include "cached_bytes.h"
#include "cases.h"

using phi4::Layer;
using phi4::Run;
using phi4::Segment;

namespace {

struct Level {
    const char* name;
    decltype(&phi4::plain::attend) attend;
    decltype(&phi4::plain::round_head) round_head;
};

constexpr Level BYTES_IN_VECTORS = {"avx512_vnni", phi4::avx512_vnni::attend_bytes, phi4::avx512::round_head};
constexpr Level LEVELS[] = {
    {"plain", phi4::plain::attend, phi4::plain::round_head},
    {"avx2", phi4::avx2::attend, phi4::avx2::round_head},
    {"avx512", phi4::avx512::attend, phi4::avx512::round_head},
    BYTES_IN_VECTORS,
    {"avx512_bf16", phi4::avx512_bf16::attend_halves, phi4::avx512::round_head},
    {"amx", phi4::amx::attend_bytes, phi4::avx512::round_head},
    {"amx", phi4::amx::attend_halves, phi4::avx512::round_head},
};

struct Case {
    int head_dim, kv_heads, queries_per_key;
    int64_t gap;  // between rows of queries
    bool bf16, byte_cache;
    int threads;
    bool cut = false;  // whether the new tokens of a conversation come in two segments
};

// New tokens, tokens before them, and where they are kept. A run may have more room than tokens.
struct Conversation {
    int64_t length, cached;
    Buffer<Run> runs;
};

// The last one ends where the cache does. Histories end before, at and behind the blocks of keys.
const std::vector<Conversation> CONVERSATIONS = {
    {1, 0, {{0, 17, 1}}},
    {5, 59, {{0, 32, 48}, {48, 0, 16}}},
    {17, 0, {{0, 80, 32}}},
    {1, 64, {{0, 112, 16}, {16, 128, 64}}},
    {33, 103, {{0, 300, 7}, {7, 192, 100}, {107, 320, 29}}},
};
constexpr int64_t SLOTS = 349;

// Keys or values: those that conversations hold are numbers, the others are none.
struct Cache {
    Bytes stored;
    Buffer<float> scales;
};

Cache make_cache(const Level& level, const Case& of, int group, std::mt19937& generator) {
    const int64_t groups = of.head_dim / group, heads = of.kv_heads * SLOTS;
    Cache cache;
    cache.stored = of.byte_cache ? Bytes(heads * of.head_dim, 0x80) : room_for(heads * of.head_dim, of.bf16);
    if (of.byte_cache) cache.scales.assign(heads * groups, NAN);
    for (const Conversation& one : CONVERSATIONS)
        for (const Run& run : one.runs)
            for (int64_t n = 0; n < run.count && run.position + n < one.cached + one.length; ++n)
                for (int head = 0; head < of.kv_heads; ++head) {
                    const int64_t place = head * SLOTS + run.slot + n;
                    const Bytes values = random_values(of.head_dim, of.bf16, generator);
                    if (of.byte_cache)
                        level.round_head(
                            values.data(), of.bf16, of.head_dim, group,
                            reinterpret_cast<int8_t*>(&cache.stored[place * of.head_dim]), &cache.scales[place * groups]);
                    else
                        std::memcpy(&cache.stored[place * values.size()], values.data(), values.size());
                }
    return cache;
}

Bytes results_of(const Level& level, const Case& of) {
    std::mt19937 generator(1);
    const Cache keys = make_cache(level, of, phi4::group_of_key(of.head_dim), generator);
    const Cache values = make_cache(level, of, of.head_dim, generator);
    Buffer<Segment> segments;
    int64_t tokens = 0;
    for (const Conversation& one : CONVERSATIONS) {
        const auto num_runs = static_cast<int64_t>(one.runs.size());
        const int64_t first = of.cut ? one.length / 3 : 0;
        if (first > 0) segments.push_back({tokens, first, one.cached, one.runs.data(), num_runs});
        segments.push_back({tokens + first, one.length - first, one.cached + first, one.runs.data(), num_runs});
        tokens += one.length;
    }
    const int heads = of.kv_heads * of.queries_per_key;
    const int64_t width = heads * of.head_dim, stride = width + of.gap;
    const Bytes queries = random_values(values_of_rows(tokens, width, stride), of.bf16, generator);
    Bytes outputs = room_for(tokens * width, of.bf16);
    const Layer layer{
        queries.data(),
        keys.stored.data(),
        values.stored.data(),
        of.byte_cache ? keys.scales.data() : nullptr,
        of.byte_cache ? values.scales.data() : nullptr,
        outputs.data(),
        stride,
        SLOTS,
        heads,
        of.kv_heads,
        of.head_dim,
        of.bf16,
    };
    level.attend(layer, segments.data(), static_cast<int64_t>(segments.size()), of.threads);
    return outputs;
}

// The last levels have kernels of their own for bytes and for bf16 only.
bool is_for(const Level& level, const Case& of) {
    if (level.attend == phi4::avx512_vnni::attend_bytes || level.attend == phi4::amx::attend_bytes) return of.byte_cache;
    if (level.attend == phi4::avx512_bf16::attend_halves || level.attend == phi4::amx::attend_halves)
        return of.bf16 && !of.byte_cache;
    return true;
}

int check(const Case& of) {
    const float error = of.byte_cache ? 0.05f : of.bf16 ? 0.02f : 1e-4f;
    const Bytes expected = results_of(LEVELS[0], of);
    int checked = 0;
    for (const Level& level : LEVELS) {
        if (!can_run(level.name) || !is_for(level, of)) continue;
        const std::string what = std::string(level.name) + ", heads of " + std::to_string(of.head_dim) +
                                 (of.byte_cache ? ", bytes" : "") + (of.bf16 ? ", bf16" : "");
        const Bytes results = results_of(level, of);
        expect_near(results, expected, of.bf16, error, what);
        Case cut = of;
        cut.cut = true;
        expect_near(results_of(level, cut), results, of.bf16, 0.0f, what + ", cut");
        // Whole numbers have the same sums in tiles.
        if (level.attend == phi4::amx::attend_bytes)
            expect_near(results, results_of(BYTES_IN_VECTORS, of), of.bf16, 0.0f, what + ", beside vectors");
        ++checked;
    }
    return checked;
}

}  // namespace

int main() {
    int checked = 0;
    for (int head_dim : {16, 32, 64, 96, 128})
        for (bool byte_cache : {false, true})
            for (bool bf16 : {false, true})
                for (int queries_per_key : {1, 3, 4})
                    checked += check({head_dim, 2, queries_per_key, 5 * (queries_per_key % 2), bf16, byte_cache,
                                      1 + queries_per_key % 2});
    std::printf("%d cases\n", checked);
}
