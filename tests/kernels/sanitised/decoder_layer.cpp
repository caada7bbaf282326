// A whole decoder layer over quantised weights, at every level, for one thread and for two.

#include "decoder_layer.h"

#include "cases.h"

using phi4::BLOCK_OUTPUTS;
using phi4::CachedLayer;
using phi4::Conversations;
using phi4::DecoderLayer;
using phi4::FullMatrix;
using phi4::LayerKernels;
using phi4::LayerLinear;
using phi4::Part;
using phi4::QuantisedKernels;

namespace {

constexpr int HEADS = 4, KV_HEADS = 2, HEAD_DIM = 32;
constexpr int64_t HIDDEN = 96, INNER = 160, RANK = 32, FULL_RANK = 5, HALF = 8, SLOTS = 64;
constexpr int64_t ATTENDED = HEADS * HEAD_DIM, FUSED = ATTENDED + 2 * KV_HEADS * HEAD_DIM;

struct Level {
    const char* name;
    LayerKernels kernels;
};

#define PRODUCTS(level) QuantisedKernels{phi4::level::quantise_rows, phi4::level::multiply_quantised}
#define LEVEL(name, products, rest, attend)                                                                       \
    {name, {PRODUCTS(products), phi4::rest::multiply, phi4::rest::rms_norm, phi4::rest::rotate, phi4::rest::swiglu, \
            phi4::rest::add, phi4::rest::scale, phi4::rest::round_head, attend}}
const Level LEVELS[] = {
    LEVEL("plain", plain, plain, phi4::plain::attend),
    LEVEL("avx2", avx2, avx2, phi4::avx2::attend),
    LEVEL("avx512", avx512, avx512, phi4::avx512::attend),
    LEVEL("avx512_vnni", avx512_vnni, avx512, phi4::avx512::attend),
    LEVEL("amx", amx, avx512, phi4::avx512::attend),
};
#undef LEVEL
#undef PRODUCTS

struct Case {
    std::vector<Part> parts;
    int64_t gap;  // between rows that come in
    bool bf16, byte_cache, adapted, quantised;
    int threads;
};

// A matrix of 8 bits and what it consists of.
struct Matrix {
    Bytes codes;
    Buffer<float> scales;
    int64_t blocks;

    Matrix(int64_t outputs, int64_t inputs, std::mt19937& generator)
        : codes(outputs * inputs), scales(outputs, 0.0005f), blocks(outputs / BLOCK_OUTPUTS) {
        for (uint8_t& code : codes) code = static_cast<uint8_t>(generator() >> 24);
    }

    phi4::QuantisedMatrix get() const { return {codes.data(), nullptr, scales.data(), blocks}; }
};

// A matrix of the rows' type.
struct Full {
    Bytes values;
    int64_t outputs;

    Full(int64_t outputs, int64_t inputs, bool bf16, std::mt19937& generator)
        : values(random_values(outputs * inputs, bf16, generator)), outputs(outputs) {}

    FullMatrix get() const { return {values.data(), outputs}; }
};

struct Linear {
    Matrix weight, down, up;
    Full full_weight, full_down, full_up;

    Linear(int64_t outputs, int64_t inputs, bool bf16, std::mt19937& generator)
        : weight(outputs, inputs, generator), down(RANK, inputs, generator), up(outputs, RANK, generator),
          full_weight(outputs, inputs, bf16, generator), full_down(FULL_RANK, inputs, bf16, generator),
          full_up(outputs, FULL_RANK, bf16, generator) {}

    // The LoRA is for all rows but the first, where there are several; the first has one that is not quantised.
    LayerLinear get(int64_t tokens, const Case& of) const {
        LayerLinear linear{};
        if (of.quantised)
            linear.quantised = weight.get();
        else
            linear.full = full_weight.get();
        if (!of.adapted) return linear;
        const int64_t first = tokens > 1 ? 1 : 0;
        if (of.quantised) linear.quantised_added.push_back({first, tokens, down.get(), up.get(), 0.5f});
        if (first > 0 || !of.quantised)
            linear.full_added.push_back({0, first > 0 ? first : tokens, full_down.get(), full_up.get(), 0.001f});
        return linear;
    }
};

// What no conversation has stored yet counts as cached, too.
struct Cache {
    Bytes keys, values;
    Buffer<float> key_scales, value_scales;

    Cache(const Case& of, std::mt19937& generator) {
        const int64_t heads = KV_HEADS * SLOTS, size = heads * HEAD_DIM;
        if (!of.byte_cache) {
            keys = random_values(size, of.bf16, generator), values = random_values(size, of.bf16, generator);
            return;
        }
        keys = Bytes(size, 7), values = Bytes(size, 9);
        key_scales = Buffer<float>(heads * (HEAD_DIM / phi4::group_of_key(HEAD_DIM)), 0.01f);
        value_scales = Buffer<float>(heads, 0.01f);
    }

    CachedLayer get(bool bytes) {
        return {keys.data(), values.data(), bytes ? key_scales.data() : nullptr, bytes ? value_scales.data() : nullptr, SLOTS};
    }
};

Bytes results_of(const Level& level, const Case& of) {
    std::mt19937 generator(4);
    const Conversations conversations(of.parts);
    const int64_t tokens = conversations.num_tokens(), stride = HIDDEN + of.gap;
    const Bytes hidden = random_values(values_of_rows(tokens, HIDDEN, stride), of.bf16, generator);
    const Bytes attention_norm = random_values(HIDDEN, of.bf16, generator), mlp_norm = random_values(HIDDEN, of.bf16, generator);
    const Bytes cos = random_values(tokens * HALF, of.bf16, generator), sin = random_values(tokens * HALF, of.bf16, generator);
    const Linear qkv(FUSED, HIDDEN, of.bf16, generator), o(HIDDEN, ATTENDED, of.bf16, generator),
        gate_up(2 * INNER, HIDDEN, of.bf16, generator), down(HIDDEN, INNER, of.bf16, generator);
    Cache cache(of, generator);
    Bytes results = room_for(tokens * HIDDEN, of.bf16);
    const DecoderLayer layer{
        hidden.data(), stride, results.data(), tokens, of.bf16, attention_norm.data(), mlp_norm.data(), 1e-5f,
        qkv.get(tokens, of), o.get(tokens, of), gate_up.get(tokens, of), down.get(tokens, of), cos.data(), sin.data(), HALF, cache.get(of.byte_cache), {HEADS, KV_HEADS, HEAD_DIM}};
    phi4::run_decoder_layer(level.kernels, conversations, layer, of.threads);
    return results;
}

int check(const Case& of) {
    const Bytes expected = results_of(LEVELS[0], of);
    int checked = 0;
    for (const Level& level : LEVELS) {
        if (!can_run(level.name)) continue;
        const std::string what = std::string(level.name) + ", " + std::to_string(of.parts.size()) + " conversations";
        const Bytes results = results_of(level, of);
        expect_near(results, expected, of.bf16, 0.05f, what);
        Case alone = of;
        alone.threads = 1;
        expect_near(results_of(level, alone), results, of.bf16, 0.0f, what + ", one thread");
        ++checked;
    }
    return checked;
}

}  // namespace

int main() {
    const std::vector<std::vector<Part>> steps = {
        {{1, 20, {{0, 32}}}},
        {{1, 3, {{0, 8}}}, {17, 2, {{16, 40}}}, {1, 0, {{63, 64}}}},
    };
    int checked = 0;
    for (const std::vector<Part>& parts : steps)
        for (bool bf16 : {false, true})
            for (bool byte_cache : {false, true})
                for (bool adapted : {false, true})
                    for (bool quantised : {false, true})
                        checked += check({parts, byte_cache ? 5 : 0, bf16, byte_cache, adapted, quantised, 2});
    std::printf("%d cases\n", checked);
    return 0;
}
