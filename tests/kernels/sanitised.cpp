// Runs the quantised product at every level on buffers without a byte to spare, and compares the levels' bits. A test
// builds it with the address and undefined-behaviour sanitisers.

#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quantised.h"

using phi4::BLOCK_OUTPUTS;
using phi4::ByteRows;
using phi4::GROUP_INPUTS;
using phi4::QuantisedProduct;

namespace {

struct Level {
    std::string name;
    decltype(&phi4::plain::quantise_rows) quantise_rows;
    decltype(&phi4::plain::multiply_quantised) multiply_quantised;
    bool can_run;
};

struct Case {
    int64_t num_rows, blocks, groups;
    bool four_bits, bf16;
    int threads;
};

std::vector<uint8_t> random_bytes(size_t size, unsigned most, std::mt19937& generator) {
    std::uniform_int_distribution<unsigned> any(0, most);
    std::vector<uint8_t> bytes(size);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(any(generator));
    return bytes;
}

std::vector<uint8_t> results_of(const Level& level, const Case& of) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    const int64_t inputs = of.groups * GROUP_INPUTS, outputs = of.blocks * BLOCK_OUTPUTS, width = of.bf16 ? 2 : 4;
    std::vector<float> wide(of.num_rows * inputs);
    for (float& value : wide) value = normal(generator);
    std::vector<uint16_t> narrow(wide.size());
    for (size_t n = 0; n < wide.size(); ++n) std::memcpy(&narrow[n], reinterpret_cast<char*>(&wide[n]) + 2, 2);
    std::vector<int8_t> values(wide.size());
    std::vector<float> scales(of.num_rows * of.groups), output_scales(outputs, 0.01f);
    std::vector<int32_t> sums(scales.size());
    const auto codes = random_bytes(outputs * inputs / (of.four_bits ? 2 : 1), 255, generator);
    auto steps = random_bytes(of.blocks * of.groups * 2 * BLOCK_OUTPUTS, 1, generator);
    for (uint8_t& step : steps) ++step;
    std::vector<uint8_t> results(of.num_rows * outputs * width);
    const ByteRows rows{values.data(), scales.data(), sums.data(), of.num_rows, of.groups};
    const void* source = of.bf16 ? static_cast<const void*>(narrow.data()) : wide.data();
    level.quantise_rows(source, inputs, of.bf16, rows, of.threads);
    level.multiply_quantised(
        {rows, codes.data(), of.four_bits ? steps.data() : nullptr, output_scales.data(), results.data(), of.blocks,
         of.bf16},
        of.threads);
    return results;
}

}  // namespace

int main() {
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const Level levels[] = {
        {"plain", phi4::plain::quantise_rows, phi4::plain::multiply_quantised, true},
        {"avx2", phi4::avx2::quantise_rows, phi4::avx2::multiply_quantised, __builtin_cpu_supports("avx2") != 0},
        {"avx512", phi4::avx512::quantise_rows, phi4::avx512::multiply_quantised, avx512},
        {"avx512_vnni", phi4::avx512_vnni::quantise_rows, phi4::avx512_vnni::multiply_quantised,
         avx512 && __builtin_cpu_supports("avx512vnni")},
    };
    int checked = 0;
    for (int64_t num_rows : {1, 2, 3, 5, 13, 257})
        for (int64_t blocks : {1, 2, 7})
            for (int64_t groups : {1, 3, 17, 33})
                for (bool four_bits : {false, true})
                    for (bool bf16 : {false, true}) {
                        const Case of{num_rows, blocks, groups, four_bits, bf16, 1 + checked % 2};
                        const auto expected = results_of(levels[0], of);
                        for (const Level& level : levels) {
                            if (!level.can_run || results_of(level, of) == expected) continue;
                            std::printf("%s differs: %ld rows, %ld blocks\n", level.name.c_str(), num_rows, blocks);
                            return 1;
                        }
                        ++checked;
                    }
    std::printf("%d cases\n", checked);
}
