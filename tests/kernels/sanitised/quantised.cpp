// The product of rows with a matrix of 4 or 8 bits, bare, with what follows it, or with LoRAs, and the largest value of 4
// bits; the levels have the same bits.

#include "quantised.h"

#include "adapted.h"

#include "cases.h"

using phi4::Activation;
using phi4::BLOCK_OUTPUTS;
using phi4::ByteRows;
using phi4::Ending;
using phi4::GROUP_INPUTS;
using phi4::QuantisedProduct;

namespace {

constexpr Activation ACTIVATIONS[] = {Activation::none, Activation::relu, Activation::gelu, Activation::silu};
constexpr int NO_ENDING = 4;

struct Level {
    const char* name;
    decltype(&phi4::plain::quantise_rows) quantise_rows;
    decltype(&phi4::plain::multiply_quantised) multiply_quantised;
    decltype(&phi4::plain::largest_value) largest_value;
};

#define LEVEL(level) \
    {#level, phi4::level::quantise_rows, phi4::level::multiply_quantised, phi4::level::largest_value}
constexpr Level LEVELS[] = {LEVEL(plain), LEVEL(avx2), LEVEL(avx512), LEVEL(avx512_vnni), LEVEL(amx)};
#undef LEVEL

struct Case {
    int64_t num_rows, blocks, groups, gap;
    bool four_bits, bf16;
    int threads, ending;
    int64_t missing = 0;  // inputs that the last group lacks
};

// Bytes from `least` on, 2^(8 - shift) different ones.
Bytes random_bytes(int64_t size, int shift, uint8_t least, std::mt19937& generator) {
    Bytes bytes(size);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(least + (generator() >> (24 + shift)));
    return bytes;
}

Bytes results_of(const Level& level, const Case& of) {
    std::mt19937 generator(1);
    const int64_t inputs = of.groups * GROUP_INPUTS, outputs = of.blocks * BLOCK_OUTPUTS, own = inputs - of.missing;
    const Bytes rows = random_values(values_of_rows(of.num_rows, own, own + of.gap), of.bf16, generator);
    Buffer<int8_t> numbers(of.num_rows * inputs);
    Buffer<float> scales(of.num_rows * of.groups), output_scales(outputs, 0.01f);
    Buffer<int32_t> sums(scales.size());
    const Bytes codes = random_bytes(outputs * inputs / (of.four_bits ? 2 : 1), 0, 0, generator);
    // From 1 to 8: steps and lowest values whose sums fit a byte.
    const Bytes steps = random_bytes(of.blocks * of.groups * 2 * BLOCK_OUTPUTS, 5, 1, generator);
    Bytes results = room_for(of.num_rows * outputs, of.bf16);
    const ByteRows rounded{numbers.data(), scales.data(), sums.data(), of.num_rows, of.groups, of.missing};
    level.quantise_rows(rows.data(), own + of.gap, of.bf16, rounded, of.threads);
    const Bytes factors = random_values(of.num_rows * outputs, of.bf16, generator);
    const Bytes residual = random_values(of.num_rows * outputs, of.bf16, generator);
    Buffer<float> bias(outputs);
    for (float& value : bias) value = random_value(generator);
    // Gates come with every activation but the first, a bias where there is more than one block.
    const Ending ending{of.blocks > 1 ? bias.data() : nullptr, of.ending ? factors.data() : nullptr, residual.data(), 0.5f,
                        ACTIVATIONS[of.ending % NO_ENDING]};
    level.multiply_quantised(
        {rounded, codes.data(), of.four_bits ? steps.data() : nullptr, output_scales.data(), results.data(), of.blocks,
         of.bf16, of.ending == NO_ENDING ? nullptr : &ending},
        of.threads);
    return results;
}

int check(const Case& of) {
    const Bytes expected = results_of(LEVELS[0], of);
    int checked = 0;
    for (const Level& level : LEVELS) {
        if (!can_run(level.name)) continue;
        const std::string what = std::string(level.name) + ", " + std::to_string(of.num_rows) + " rows, " +
                                 std::to_string(of.blocks) + " blocks";
        expect_near(results_of(level, of), expected, of.bf16, 0.0f, what);
        ++checked;
    }
    return checked;
}

// Rows of `places` get the LoRA, those between them stay bare.
Bytes adapted(const Level& level, int64_t num_rows, int64_t gap, bool bf16, std::vector<std::pair<int64_t, int64_t>> places) {
    constexpr int64_t GROUPS = 3, BLOCKS = 2, RANK_BLOCKS = 4, INPUTS = GROUPS * GROUP_INPUTS;
    constexpr int64_t OUTPUTS = BLOCKS * BLOCK_OUTPUTS, RANK = RANK_BLOCKS * BLOCK_OUTPUTS;
    std::mt19937 generator(2);
    const Bytes rows = random_values(values_of_rows(num_rows, INPUTS, INPUTS + gap), bf16, generator);
    const Bytes codes = random_bytes(OUTPUTS * INPUTS, 0, 0, generator), down = random_bytes(RANK * INPUTS, 0, 0, generator),
                up = random_bytes(OUTPUTS * RANK, 0, 0, generator);
    const Buffer<float> scales(RANK, 0.001f), output_scales(OUTPUTS, 0.001f);
    std::vector<phi4::LowRank> loras;
    for (const auto& [start, stop] : places)
        loras.push_back({start, stop, {down.data(), nullptr, scales.data(), RANK_BLOCKS},
                         {up.data(), nullptr, output_scales.data(), BLOCKS}, 0.5f});
    Buffer<int8_t> numbers(num_rows * INPUTS);
    Buffer<float> row_scales(num_rows * GROUPS);
    Buffer<int32_t> offsets(row_scales.size());
    Bytes results = room_for(num_rows * OUTPUTS, bf16);
    phi4::multiply_adapted(
        {level.quantise_rows, level.multiply_quantised}, {rows.data(), INPUTS + gap, bf16},
        {numbers.data(), row_scales.data(), offsets.data(), num_rows, GROUPS},
        {codes.data(), nullptr, output_scales.data(), BLOCKS}, loras, results.data(), 2);
    return results;
}

int check_adapted(int64_t num_rows, bool bf16) {
    int checked = 0;
    for (const Level& level : LEVELS) {
        if (!can_run(level.name)) continue;
        for (const std::vector<std::pair<int64_t, int64_t>>& places :
             {std::vector<std::pair<int64_t, int64_t>>{{0, num_rows}}, {{num_rows / 2, num_rows}}}) {
            const std::string what = std::string(level.name) + ", LoRAs of " + std::to_string(num_rows) + " rows";
            const Bytes expected = adapted(LEVELS[0], num_rows, 5, bf16, places);
            expect_near(adapted(level, num_rows, 5, bf16, places), expected, bf16, 0.0f, what);
            ++checked;
        }
    }
    return checked;
}

int check_largest_value(int64_t places) {
    std::mt19937 generator(1);
    const Bytes steps = random_bytes(places * 2 * BLOCK_OUTPUTS, 0, 0, generator);
    const int expected = phi4::plain::largest_value(steps.data(), places);
    int checked = 0;
    for (const Level& level : LEVELS) {
        if (!can_run(level.name)) continue;
        const int largest = level.largest_value(steps.data(), places);
        ++checked;
        if (largest == expected) continue;
        std::printf("%s, %ld places: %d instead of %d\n", level.name, static_cast<long>(places), largest, expected);
        std::exit(1);
    }
    return checked;
}

}  // namespace

int main() {
    int checked = 0;
    for (int64_t num_rows : {1, 2, 3, 5, 13, 16, 33, 257})
        for (int64_t blocks : {1, 2, 7})
            for (int64_t groups : {1, 3, 17})
                for (bool four_bits : {false, true})
                    for (bool bf16 : {false, true})
                        for (int ending = 0; ending <= NO_ENDING; ++ending)
                            checked += check(
                                {num_rows, blocks, groups, 3 * (blocks % 2), four_bits, bf16, 1 + checked / 4 % 2, ending,
                                 ending == NO_ENDING ? 0 : 5});
    for (int64_t num_rows : {1, 2, 7, 33})
        for (bool bf16 : {false, true}) checked += check_adapted(num_rows, bf16);
    for (int64_t places : {1, 2, 3, 7, 64, 1000}) checked += check_largest_value(places);
    std::printf("%d cases\n", checked);
}
