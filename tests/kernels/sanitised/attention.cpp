// Storing of new keys and values as numbers and as bytes, and attention over caches of both.

#include "attention.h"

#include "cached_bytes.h"
#include "cases.h"
#include "conversations.h"

using phi4::Conversations;
using phi4::Layer;
using phi4::Part;
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
    int64_t gap;  // between rows of queries, of keys and of values
    bool bf16, byte_cache;
    int threads;
    bool cut = false;  // whether the new tokens of a conversation come in two segments
};

// Slots may be more than tokens. The last ones end where the cache does. Histories end before, at and behind the blocks of
// keys.
const std::vector<Part> CONVERSATIONS = {
    {1, 0, {{17, 18}}},
    {5, 59, {{32, 80}, {0, 16}}},
    {17, 0, {{80, 112}}},
    {1, 64, {{112, 128}, {128, 192}}},
    {33, 103, {{300, 307}, {192, 292}, {320, 349}}},
};
constexpr int64_t SLOTS = 349;

// Their cached tokens, as a step that came before.
std::vector<Part> earlier_step() {
    std::vector<Part> parts;
    for (const auto& [length, cached, slots] : CONVERSATIONS)
        if (cached > 0) parts.push_back({cached, 0, slots});
    return parts;
}

// Their new tokens. Cut, those of a conversation come in two segments.
std::vector<Part> own_step(bool cut) {
    std::vector<Part> parts;
    for (const auto& [length, cached, slots] : CONVERSATIONS) {
        const int64_t first = cut ? length / 3 : 0;
        if (first > 0) parts.push_back({first, cached, slots});
        parts.push_back({length - first, cached + first, slots});
    }
    return parts;
}

// Keys or values. What no conversation has stored is no number.
struct Cache {
    Bytes stored;
    Buffer<float> scales;
};

Cache empty_cache(const Case& of, int group) {
    const int64_t heads = of.kv_heads * SLOTS;
    if (!of.byte_cache) return {room_for(heads * of.head_dim, of.bf16), {}};
    return {Bytes(heads * of.head_dim, 0x80), Buffer<float>(heads * (of.head_dim / group), NAN)};
}

void store(
    const Level& level, const Case& of, int group, const Conversations& step, Cache& cache, std::mt19937& generator) {
    const int64_t width = of.kv_heads * of.head_dim, stride = width + of.gap;
    const Bytes rows = random_values(values_of_rows(step.num_tokens(), width, stride), of.bf16, generator);
    step.write(
        level.round_head, reinterpret_cast<const char*>(rows.data()), stride * value_bytes(of.bf16),
        reinterpret_cast<char*>(cache.stored.data()), of.byte_cache ? cache.scales.data() : nullptr, group, SLOTS,
        of.kv_heads, of.head_dim, of.bf16);
}

Bytes results_of(const Level& level, const Case& of) {
    std::mt19937 generator(1);
    const Conversations earlier(earlier_step()), step(own_step(of.cut));
    const int key_group = phi4::group_of_key(of.head_dim);
    Cache keys = empty_cache(of, key_group), values = empty_cache(of, of.head_dim);
    for (const Conversations* one : {&earlier, &step}) {
        store(level, of, key_group, *one, keys, generator);
        store(level, of, of.head_dim, *one, values, generator);
    }
    const int64_t tokens = step.num_tokens();
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
    const std::vector<Segment>& segments = step.segments();
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
