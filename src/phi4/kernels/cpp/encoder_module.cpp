// What Python sees of the encoders' kernels: addresses come in, checked by phi4/kernels/encoder.py.

#include "encoder_module.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <string>
#include <tuple>

#include "encoder.h"

namespace nb = nanobind;

namespace phi4 {

#ifdef PHI4_X86

namespace {

using Address = uintptr_t;  // 0 for what is not there

template <typename T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

decltype(&avx512_bf16::project) project_of([[maybe_unused]] const std::string& level) {
#ifdef PHI4_TILES
    if (level == "amx") return amx::project;
#endif
    return avx512_bf16::project;
}

void project_at(
    const std::string& level, int threads,
    std::tuple<Address, Address, Address, Address, Address> addresses,                // rows, weights, bias, residual, results
    int64_t row_stride, std::tuple<int64_t, int64_t, int64_t> sizes,                  // rows, outputs, inputs
    float scale, int activation, bool gated) {
    const auto [rows, weights, bias, residual, results] = addresses;
    const auto [num_rows, outputs, inputs] = sizes;
    const Projection own{at<const void>(rows), at<const void>(weights), at<const float>(bias), at<const void>(residual),
                         at<void>(results),    row_stride,              num_rows,              outputs,
                         inputs,               scale,                   static_cast<Activation>(activation), gated};
    nb::gil_scoped_release released;
    project_of(level)(own, threads);
}

void attend_at(
    int threads, std::tuple<Address, Address, Address, Address, Address> addresses,  // queries, keys, values, bias, results
    int64_t row_stride, std::tuple<int64_t, int64_t, int64_t> bias_strides,          // of sequences, heads, queries
    std::tuple<int64_t, int64_t, int64_t, int64_t> sizes) {                          // sequences, length, heads, head_dim
    const auto [queries, keys, values, bias, results] = addresses;
    const auto [bias_sequence, bias_head, bias_query] = bias_strides;
    const auto [sequences, length, heads, head_dim] = sizes;
    const FullAttention own{at<const void>(queries), at<const void>(keys), at<const void>(values), at<const void>(bias),
                            at<void>(results),       row_stride,           bias_sequence,          bias_head,
                            bias_query,              sequences,            length,                 heads,
                            head_dim};
    nb::gil_scoped_release released;
    attend_fully(own, threads);
}

void layer_norm_at(
    int threads, std::tuple<Address, Address, Address, Address> addresses,  // rows, weight, bias, results
    int64_t num_rows, int64_t width, float eps) {
    const auto [rows, weight, bias, results] = addresses;
    const LayerNorm own{at<const void>(rows), at<const void>(weight), at<const void>(bias), at<void>(results),
                        num_rows,             width,                  eps};
    nb::gil_scoped_release released;
    layer_norm(own, threads);
}

void convolve_at(
    int threads, std::tuple<Address, Address, Address, Address> addresses,  // rows, weight, bias, results
    std::tuple<int64_t, int64_t, int64_t, int64_t> sizes) {                 // sequences, length, width, kernel_size
    const auto [rows, weight, bias, results] = addresses;
    const auto [sequences, length, width, kernel_size] = sizes;
    const CausalConvolution own{at<const void>(rows), at<const float>(weight), at<const float>(bias), at<void>(results),
                                sequences,            length,                  width,                 kernel_size};
    nb::gil_scoped_release released;
    convolve(own, threads);
}

void downsample_at(
    int threads, std::tuple<Address, Address, Address, Address> addresses,  // rows, weight, bias, results
    std::tuple<int64_t, int64_t, int64_t, int64_t> sizes,                   // clips, frames, mels, channels
    bool from_one, bool relu) {
    const auto [rows, weight, bias, results] = addresses;
    const auto [clips, frames, mels, channels] = sizes;
    const Downsampling own{at<const void>(rows), at<const float>(weight), at<const float>(bias), at<void>(results), clips,
                           frames,               mels,                    channels,              from_one,          relu};
    nb::gil_scoped_release released;
    downsample(own, threads);
}

}  // namespace

void bind_encoders(nb::module_& module) {
    module.def("project", &project_at);
    module.def("attend_fully", &attend_at);
    module.def("layer_norm", &layer_norm_at);
    module.def("convolve", &convolve_at);
    module.def("downsample", &downsample_at);
}

#else

void bind_encoders(nb::module_&) {}

#endif

}  // namespace phi4
