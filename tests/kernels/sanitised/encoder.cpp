// What the encoders are made of. Its results are compared with plain sums by the tests in Python; here they must be numbers,
// and products the same in tiles, but for their order.

#include "encoder.h"

#include "cases.h"

namespace {

using phi4::Activation;

Bytes values(int64_t count) {
    static std::mt19937 generator(1);
    return random_values(count, true, generator);
}

Buffer<float> wide(int64_t count) {
    static std::mt19937 generator(2);
    Buffer<float> made(count);
    for (float& value : made) value = random_value(generator);
    return made;
}

void expect_numbers(const Bytes& results, const char* what) { expect_near(results, results, true, 0.0f, what); }

int project() {
    int checked = 0, number = 0;
    // Blocks of rows have 1,536.
    for (int64_t num_rows : {1, 5, 6, 13, 1537})
        for (int64_t outputs : {1, 31, 32, 65, 100})
            for (int64_t inputs : {2, 30, 32, 66})
                for (bool gated : {false, true}) {
                    const bool has_residual = number % 2, has_gap = number / 2 % 2;
                    const int64_t stride = inputs + (has_gap ? 3 : 0), weight_rows = outputs * (1 + gated);
                    const Bytes rows = values(values_of_rows(num_rows, inputs, stride));
                    const Bytes weights = values(weight_rows * inputs);
                    const Buffer<float> bias = wide(weight_rows);
                    const Bytes residual = values(has_residual ? num_rows * outputs : 0);
                    Bytes results[] = {room_for(num_rows * outputs, true), room_for(num_rows * outputs, true)};
                    phi4::Projection own{rows.data(),         weights.data(), bias.data(),
                                         has_residual ? residual.data() : nullptr,
                                         results[0].data(),   stride,         num_rows,
                                         outputs,             inputs,         0.5f,
                                         static_cast<Activation>(number / 2 % 4), gated};
                    phi4::avx512_bf16::project(own, 1 + number % 3 % 2);
                    expect_numbers(results[0], "project");
                    own.results = results[1].data();
                    phi4::amx::project(own, 1 + number % 3 % 2);
                    expect_near(results[1], results[0], true, 0.05f, "project in tiles");
                    checked += 2;
                    ++number;
                }
    return checked;
}

// Strides of a bias for sequences, heads and queries, and how many values it has.
struct Bias {
    int64_t sequence, head, query, count;
};

int attend() {
    int checked = 0;
    for (int64_t sequences : {1, 2})
        for (int64_t length : {1, 2, 17, 63, 64, 65, 130})
            for (int64_t heads : {1, 3})
                for (int64_t head_dim : {2, 16, 24, 64, 72, 128}) {
                    // Queries, keys and values of a position stand beside each other.
                    const int64_t width = heads * head_dim, stride = 3 * width;
                    const Bytes fused = values(sequences * length * stride);
                    const Bias biases[] = {
                        {0, 0, 0, 0},
                        {0, 0, 0, length},
                        {length, 0, 0, sequences * length},
                        {0, length * length, length, heads * length * length},
                    };
                    for (const Bias& of : biases) {
                        const Bytes bias = values(of.count);
                        Bytes results = room_for(sequences * length * width, true);
                        phi4::attend_fully(
                            {fused.data(), fused.data() + 2 * width, fused.data() + 4 * width,
                             of.count ? bias.data() : nullptr, results.data(), stride, of.sequence, of.head, of.query,
                             sequences, length, heads, head_dim},
                            1 + checked % 2);
                        expect_numbers(results, "attend_fully");
                        ++checked;
                    }
                }
    return checked;
}

int norm() {
    int checked = 0;
    for (int64_t num_rows : {1, 7})
        for (int64_t width : {1, 15, 16, 17, 40, 1152}) {
            const Bytes rows = values(num_rows * width), weight = values(width), bias = values(width);
            Bytes results = room_for(num_rows * width, true);
            phi4::layer_norm(
                {rows.data(), weight.data(), bias.data(), results.data(), num_rows, width, 1e-5f}, 1 + checked % 2);
            expect_numbers(results, "layer_norm");
            ++checked;
        }
    return checked;
}

int convolve() {
    int checked = 0;
    for (int64_t sequences : {1, 2})
        for (int64_t length : {1, 2, 9})
            for (int64_t width : {1, 16, 37})
                for (int64_t kernel_size : {1, 3, 5}) {
                    const Bytes rows = values(sequences * length * width);
                    const Buffer<float> weight = wide(kernel_size * width), bias = wide(width);
                    Bytes results = room_for(sequences * length * width, true);
                    phi4::convolve(
                        {rows.data(), weight.data(), bias.data(), results.data(), sequences, length, width, kernel_size},
                        1 + checked % 2);
                    expect_numbers(results, "convolve");
                    ++checked;
                }
    return checked;
}

int downsample() {
    int checked = 0;
    for (int64_t clips : {1, 2})
        for (int64_t frames : {1, 2, 7})
            for (int64_t mels : {1, 5, 8})
                for (int64_t channels : {1, 16, 37})
                    for (bool from_one : {false, true}) {
                        const Bytes rows = values(clips * frames * mels * (from_one ? 1 : channels));
                        const Buffer<float> weight = wide(9 * channels), bias = wide(channels);
                        Bytes results = room_for(clips * ((frames + 1) / 2) * ((mels + 1) / 2) * channels, true);
                        phi4::downsample(
                            {rows.data(), weight.data(), bias.data(), results.data(), clips, frames, mels, channels,
                             from_one, checked % 3 == 0},
                            1 + checked % 2);
                        expect_numbers(results, "downsample");
                        ++checked;
                    }
    return checked;
}

}  // namespace

int main() {
    if (!can_run("avx512_bf16")) return std::puts("0 cases"), 0;
    int checked = 0;
    for (bool end : {true, false}) {
        at_page_end = end;
        checked += project() + attend() + norm() + convolve() + downsample();
    }
    std::printf("%d cases\n", checked);
}
