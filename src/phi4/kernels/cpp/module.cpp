// What Python sees of the kernels: addresses come in, checked by the modules of phi4.kernels.

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "adapted.h"
#include "attention.h"
#include "cached_bytes.h"
#include "conversations.h"
#include "decoder_layer.h"
#include "elementwise.h"
#include "encoder_module.h"
#include "linear.h"
#include "quantised.h"
#include "scores.h"
#include "tile_trial.h"

namespace nb = nanobind;

namespace phi4 {

namespace {

bool has_head_dim(int head_dim) {
#define PHI4_IS(size) || head_dim == size
    return false PHI4_FOR_EACH_HEAD_DIM(PHI4_IS);
#undef PHI4_IS
}

// What one level of instructions brings.
struct Level {
    std::string name;
    decltype(&plain::attend) attend;
    decltype(&plain::attend) attend_halves;
    decltype(&plain::attend) attend_bytes;
    decltype(&plain::round_head) round_head;
    decltype(&plain::multiply) multiply;
    decltype(&plain::rms_norm) rms_norm;
    decltype(&plain::swiglu) swiglu;
    decltype(&plain::rotate) rotate;
    decltype(&plain::add) add;
    decltype(&plain::scale) scale;
    decltype(&plain::quantise_rows) quantise_rows;
    decltype(&plain::multiply_quantised) multiply_quantised;
    decltype(&plain::largest_value) largest_value;
    decltype(&plain::best_scores) best_scores;
};

#define PHI4_LEVEL_OF(name, level)                                                                                 \
    Level {                                                                                                        \
        name, level::attend, level::attend, level::attend, level::round_head, level::multiply, level::rms_norm,    \
            level::swiglu, level::rotate, level::add, level::scale, level::quantise_rows,                          \
            level::multiply_quantised, level::largest_value, level::best_scores                                    \
    }

// The levels that this processor has, the best one first. One that has more instructions brings what they are for, and
// the rest of the level below.
const std::vector<Level>& levels() {
    static const std::vector<Level> found = [] {
        std::vector<Level> found = {PHI4_LEVEL_OF("plain", plain)};
#ifdef PHI4_X86
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
            found.insert(found.begin(), PHI4_LEVEL_OF("avx2", avx2));
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("fma");
        if (avx512) found.insert(found.begin(), PHI4_LEVEL_OF("avx512", avx512));
        if (avx512 && __builtin_cpu_supports("avx512vnni")) {
            Level own = PHI4_LEVEL_OF("avx512_vnni", avx512);
            own.attend_bytes = avx512_vnni::attend_bytes;
            own.quantise_rows = avx512_vnni::quantise_rows;
            own.multiply_quantised = avx512_vnni::multiply_quantised;
            found.insert(found.begin(), own);
            if (__builtin_cpu_supports("avx512bf16")) {
                own.name = "avx512_bf16";
                own.attend_halves = avx512_bf16::attend_halves;
                own.multiply = avx512_bf16::multiply;
                found.insert(found.begin(), own);
#ifdef PHI4_TILES
                if (tiles_work()) {
                    own.name = "amx";
                    own.attend_bytes = amx::attend_bytes;
                    own.attend_halves = amx::attend_halves;
                    own.multiply = amx::multiply;
                    own.quantise_rows = amx::quantise_rows;
                    own.multiply_quantised = amx::multiply_quantised;
                    found.insert(found.begin(), own);
                }
#endif
            }
        }
#endif
        return found;
    }();
    return found;
}

std::vector<std::string> level_names() {
    std::vector<std::string> names;
    for (const Level& level : levels()) names.push_back(level.name);
    return names;
}

const Level& level_called(const std::string& name) {
    for (const Level& level : levels())
        if (level.name == name) return level;
    throw std::invalid_argument("this processor has no level of instructions called " + name);
}

void multiply(
    const std::string& level,
    int threads,
    std::tuple<uintptr_t, uintptr_t, uintptr_t> addresses,  // rows, weights, results
    std::pair<int64_t, int64_t> strides,                     // of rows and results, in values
    std::tuple<int64_t, int64_t, int64_t> sizes,             // rows, outputs, inputs
    bool add,
    bool bf16) {
    const Product product{
        reinterpret_cast<const void*>(std::get<0>(addresses)),
        reinterpret_cast<const void*>(std::get<1>(addresses)),
        reinterpret_cast<void*>(std::get<2>(addresses)),
        strides.first,
        strides.second,
        std::get<0>(sizes),
        std::get<1>(sizes),
        std::get<2>(sizes),
        add,
        bf16,
    };
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    own.multiply(product, threads);
}

ByteRows byte_rows(std::tuple<uintptr_t, uintptr_t, uintptr_t> addresses, int64_t num_rows, int64_t groups) {
    const auto [values, scales, offsets] = addresses;
    return {reinterpret_cast<int8_t*>(values), reinterpret_cast<float*>(scales), reinterpret_cast<int32_t*>(offsets),
            num_rows, groups};
}

using Matrix = std::tuple<uintptr_t, uintptr_t, uintptr_t, int64_t>;  // codes, steps or 0, scales; blocks of outputs

QuantisedMatrix quantised_matrix(const Matrix& matrix) {
    const auto [codes, steps, scales, blocks] = matrix;
    return {reinterpret_cast<const uint8_t*>(codes), reinterpret_cast<const uint8_t*>(steps),
            reinterpret_cast<const float*>(scales), blocks};
}

using Loras = std::vector<std::tuple<int64_t, int64_t, Matrix, Matrix, float>>;  // start, stop, A, B, scale
using Full = std::pair<uintptr_t, int64_t>;                          // values, outputs

std::vector<LowRank> low_ranks(const Loras& loras) {
    std::vector<LowRank> found;
    for (const auto& [start, stop, down, up, scale] : loras)
        found.push_back({start, stop, quantised_matrix(down), quantised_matrix(up), scale});
    return found;
}

void multiply_quantised(
    const std::string& level, int threads,
    std::pair<uintptr_t, int64_t> rows,                                              // address and stride, in values
    std::tuple<uintptr_t, uintptr_t, uintptr_t> quantised_rows, Matrix weight,       // room for values, scales, offsets
    const Loras& loras,
    uintptr_t results, std::pair<int64_t, int64_t> sizes, bool bf16) {               // rows, groups of inputs
    const std::vector<LowRank> added = low_ranks(loras);
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    multiply_adapted(
        {own.quantise_rows, own.multiply_quantised}, {reinterpret_cast<const void*>(rows.first), rows.second, bf16},
        byte_rows(quantised_rows, sizes.first, sizes.second), quantised_matrix(weight), added,
        reinterpret_cast<void*>(results), threads);
}

void round_rows(
    const std::string& level, int threads, std::pair<uintptr_t, int64_t> rows,  // address and stride, in values
    std::tuple<uintptr_t, uintptr_t, uintptr_t> quantised_rows,                 // values, scales, offsets: room for them
    std::pair<int64_t, int64_t> sizes, bool bf16) {                             // rows, inputs
    const auto [num_rows, inputs] = sizes;
    const int64_t groups = (inputs + GROUP_INPUTS - 1) / GROUP_INPUTS;
    ByteRows bytes = byte_rows(quantised_rows, num_rows, groups);
    bytes.missing = groups * GROUP_INPUTS - inputs;
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    own.quantise_rows(reinterpret_cast<const void*>(rows.first), rows.second, bf16, bytes, threads);
}

void project_rounded(
    const std::string& level, int threads,
    std::tuple<uintptr_t, uintptr_t, uintptr_t> quantised_rows,     // values, scales, offsets
    std::tuple<uintptr_t, uintptr_t, uintptr_t> weights,            // codes, steps or 0, scales
    std::tuple<uintptr_t, uintptr_t, uintptr_t, uintptr_t> others,  // bias, factors, residual, each or 0; results
    std::tuple<int64_t, int64_t, int64_t> sizes,                    // rows, blocks of outputs, groups of inputs
    float scale, int activation, bool bf16) {
    const auto [num_rows, blocks, groups] = sizes;
    const auto [codes, steps, scales] = weights;
    const auto [bias, factors, residual, results] = others;
    const Ending ending{reinterpret_cast<const float*>(bias), reinterpret_cast<const void*>(factors),
                        reinterpret_cast<const void*>(residual), scale, static_cast<Activation>(activation)};
    const QuantisedProduct product{
        byte_rows(quantised_rows, num_rows, groups),
        reinterpret_cast<const uint8_t*>(codes),
        reinterpret_cast<const uint8_t*>(steps),
        reinterpret_cast<const float*>(scales),
        reinterpret_cast<void*>(results),
        blocks,
        bf16,
        &ending,
    };
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    own.multiply_quantised(product, threads);
}

int largest_value(const std::string& level, uintptr_t steps, int64_t places) {
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    return own.largest_value(reinterpret_cast<const uint8_t*>(steps), places);
}

void rms_norm(
    const std::string& level, int threads, uintptr_t input, uintptr_t weight, uintptr_t output, int64_t num_rows,
    int64_t width, int64_t input_stride, float eps, bool bf16) {
    const Rows rows{reinterpret_cast<const void*>(input), reinterpret_cast<void*>(output), num_rows, width,
                    input_stride, bf16};
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    own.rms_norm(rows, reinterpret_cast<const void*>(weight), eps, threads);
}

void swiglu(
    const std::string& level, int threads, uintptr_t input, uintptr_t output, int64_t num_rows, int64_t width,
    int64_t input_stride, bool bf16) {
    const Rows rows{reinterpret_cast<const void*>(input), reinterpret_cast<void*>(output), num_rows, width,
                    input_stride, bf16};
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    own.swiglu(rows, threads);
}

void rotate(
    const std::string& level, int threads, std::tuple<uintptr_t, uintptr_t, uintptr_t> addresses,  // heads, cos, sin
    int64_t token_stride, std::tuple<int64_t, int64_t, int64_t, int64_t> sizes,  // tokens, heads, head_dim, half
    bool bf16) {
    const auto [tokens, num_heads, head_dim, half] = sizes;
    const Rotation rotation{
        reinterpret_cast<void*>(std::get<0>(addresses)), reinterpret_cast<const void*>(std::get<1>(addresses)),
        reinterpret_cast<const void*>(std::get<2>(addresses)), tokens, token_stride, num_heads, head_dim, half, bf16};
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    own.rotate(rotation, threads);
}

void best_scores(
    const std::string& level, int threads, uintptr_t values,
    std::pair<uintptr_t, uintptr_t> results,  // places, whether finite
    int64_t num_rows, int64_t width, int64_t stride, bool bf16) {
    const Scores scores{reinterpret_cast<const void*>(values), stride, width,
                        reinterpret_cast<int64_t*>(results.first), reinterpret_cast<bool*>(results.second), bf16};
    const Level& own = level_called(level);
    nb::gil_scoped_release released;
    own.best_scores(scores, num_rows, threads);
}

LayerKernels layer_kernels(const Level& own, bool bytes, bool bf16) {
    const auto attend = bytes ? own.attend_bytes : bf16 ? own.attend_halves : own.attend;
    return {{own.quantise_rows, own.multiply_quantised}, own.multiply, own.rms_norm, own.rotate, own.swiglu, own.add, own.scale,
            own.round_head, attend};
}

CachedLayer cached_layer(std::pair<uintptr_t, uintptr_t> cache, std::pair<uintptr_t, uintptr_t> scales, int64_t slots) {
    return {reinterpret_cast<void*>(cache.first), reinterpret_cast<void*>(cache.second),
            reinterpret_cast<float*>(scales.first), reinterpret_cast<float*>(scales.second), slots};
}

HeadSizes head_sizes(std::tuple<int, int, int> sizes) {
    return {std::get<0>(sizes), std::get<1>(sizes), std::get<2>(sizes)};
}

// Stores the new tokens of one layer, then lets each of them attend.
void attend(
    const Conversations& conversations,
    const std::string& level,
    int threads,
    std::tuple<uintptr_t, uintptr_t, uintptr_t> news,  // queries, keys, values
    std::tuple<int64_t, int64_t, int64_t> strides,     // of their rows, in values
    std::pair<uintptr_t, uintptr_t> cache,             // keys, values
    std::pair<uintptr_t, uintptr_t> scales,            // of both; 0 where the cache holds no bytes
    int64_t slots,
    std::tuple<int, int, int> sizes,  // heads, kv_heads, head_dim
    bool bf16,
    uintptr_t outputs) {
    const NewHeads heads{
        reinterpret_cast<const void*>(std::get<0>(news)), reinterpret_cast<const void*>(std::get<1>(news)),
        reinterpret_cast<const void*>(std::get<2>(news)), std::get<0>(strides), std::get<1>(strides), std::get<2>(strides)};
    const LayerKernels kernels = layer_kernels(level_called(level), scales.first != 0, bf16);
    nb::gil_scoped_release released;
    store_and_attend(
        kernels, conversations, heads, cached_layer(cache, scales, slots), head_sizes(sizes), bf16,
        reinterpret_cast<void*>(outputs), threads);
}

FullMatrix full_matrix(const Full& matrix) { return {reinterpret_cast<const void*>(matrix.first), matrix.second}; }

// One of the two is 0.
using AnyMatrix = std::pair<Matrix, Full>;
using LoraParts = std::tuple<AnyMatrix, AnyMatrix, float>;              // A, B, scale
using LinearParts = std::pair<AnyMatrix, std::vector<LoraParts>>;       // one LoRA for each adapter
using NormParts = std::tuple<uintptr_t, uintptr_t, float>;              // before attention and MLP; eps
using LayerParts = std::pair<NormParts, std::tuple<LinearParts, LinearParts, LinearParts, LinearParts>>;
using Runs = std::vector<std::tuple<size_t, int64_t, int64_t>>;         // adapter, start, stop
using CacheParts = std::pair<std::pair<uintptr_t, uintptr_t>, std::pair<uintptr_t, uintptr_t>>;  // keys, values; scales

// What stays the same from step to step.
struct DecoderLayers {
    explicit DecoderLayers(std::vector<LayerParts> parts) : layers(std::move(parts)) {}

    std::vector<LayerParts> layers;
};

LayerLinear layer_linear(const LinearParts& parts, const Runs& runs) {
    const auto& [weight, loras] = parts;
    LayerLinear linear{quantised_matrix(weight.first), full_matrix(weight.second), {}, {}};
    for (const auto& [adapter, start, stop] : runs) {
        const auto& [down, up, scale] = loras.at(adapter);
        if (std::get<0>(down.first) != 0)
            linear.quantised_added.push_back({start, stop, quantised_matrix(down.first), quantised_matrix(up.first), scale});
        else
            linear.full_added.push_back({start, stop, full_matrix(down.second), full_matrix(up.second), scale});
    }
    return linear;
}

void run_layers(
    const Conversations& conversations, const std::string& level, int threads, const DecoderLayers& layers,
    std::tuple<uintptr_t, int64_t, uintptr_t> rows,                  // hidden, its stride in values, results
    const Runs& runs,
    std::tuple<uintptr_t, uintptr_t, int64_t> rotary,                // cos, sin, half
    const std::vector<CacheParts>& caches, int64_t slots,            // of the layers that are to run
    std::tuple<int, int, int> sizes, bool bf16) {
    auto [hidden, stride, results] = rows;
    const auto [cos, sin, half] = rotary;
    const bool bytes = !caches.empty() && caches.front().second.first != 0;
    const LayerKernels kernels = layer_kernels(level_called(level), bytes, bf16);
    nb::gil_scoped_release released;
    for (size_t n = 0; n < caches.size(); ++n) {
        const auto& [norms, linears] = layers.layers.at(n);
        const auto& [attention_norm, mlp_norm, eps] = norms;
        const auto& [qkv, o, gate_up, down] = linears;
        const DecoderLayer layer{
            reinterpret_cast<const void*>(hidden),
            stride,
            reinterpret_cast<void*>(results),
            conversations.num_tokens(),
            bf16,
            reinterpret_cast<const void*>(attention_norm),
            reinterpret_cast<const void*>(mlp_norm),
            eps,
            layer_linear(qkv, runs),
            layer_linear(o, runs),
            layer_linear(gate_up, runs),
            layer_linear(down, runs),
            reinterpret_cast<const void*>(cos),
            reinterpret_cast<const void*>(sin),
            half,
            cached_layer(caches[n].first, caches[n].second, slots),
            head_sizes(sizes),
        };
        run_decoder_layer(kernels, conversations, layer, threads);
        // The next layer adds to what this one gave, in its place.
        hidden = results;
        stride = layer.o.outputs();
    }
}

}  // namespace

NB_MODULE(native, module) {
    module.def("levels", &level_names);
    module.def("multiply", &multiply);
    module.def("multiply_quantised", &multiply_quantised);
    module.def("round_rows", &round_rows);
    module.def("project_rounded", &project_rounded);
    module.def("largest_value", &largest_value);
    module.def("rms_norm", &rms_norm);
    module.def("swiglu", &swiglu);
    module.def("rotate", &rotate);
    module.def("best_scores", &best_scores);
    module.def("has_head_dim", &has_head_dim);
    bind_encoders(module);
    nb::class_<Conversations>(module, "Conversations")
        .def(nb::init<const std::vector<Part>&>())
        .def_prop_ro("num_tokens", &Conversations::num_tokens)
        .def_prop_ro("num_slots", &Conversations::num_slots)
        .def("attend", &attend)
        .def("run_layers", &run_layers);
    nb::class_<DecoderLayers>(module, "DecoderLayers").def(nb::init<std::vector<LayerParts>>());
}

}  // namespace phi4
