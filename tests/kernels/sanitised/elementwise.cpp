// Norm, gate and rotation.

#include "elementwise.h"

#include "cases.h"

namespace {

struct Level {
    const char* name;
    decltype(&phi4::plain::rms_norm) rms_norm;
    decltype(&phi4::plain::swiglu) swiglu;
    decltype(&phi4::plain::rotate) rotate;
};

constexpr Level LEVELS[] = {
    {"plain", phi4::plain::rms_norm, phi4::plain::swiglu, phi4::plain::rotate},
    {"avx2", phi4::avx2::rms_norm, phi4::avx2::swiglu, phi4::avx2::rotate},
    {"avx512", phi4::avx512::rms_norm, phi4::avx512::swiglu, phi4::avx512::rotate},
};

struct Case {
    int64_t num_rows, width, gap;
    bool bf16;
    int threads;
};

Bytes normed(const Level& level, const Case& of) {
    std::mt19937 generator(1);
    const int64_t stride = of.width + of.gap;
    const Bytes input = random_values(values_of_rows(of.num_rows, of.width, stride), of.bf16, generator);
    const Bytes weight = random_values(of.width, of.bf16, generator);
    Bytes output = room_for(of.num_rows * of.width, of.bf16);
    level.rms_norm({input.data(), output.data(), of.num_rows, of.width, stride, of.bf16}, weight.data(), 1e-5f, of.threads);
    return output;
}

Bytes gated(const Level& level, const Case& of) {
    std::mt19937 generator(1);
    const int64_t stride = 2 * of.width + of.gap;
    Bytes input = random_values(values_of_rows(of.num_rows, 2 * of.width, stride), of.bf16, generator);
    // The exponential at both ends.
    set_value(input, 0, of.bf16, 3e38f);
    set_value(input, of.width - 1, of.bf16, -3e38f);
    set_value(input, of.width, of.bf16, 0.5f);
    Bytes output = room_for(of.num_rows * of.width, of.bf16);
    level.swiglu({input.data(), output.data(), of.num_rows, of.width, stride, of.bf16}, of.threads);
    return output;
}

// Heads of `width` values, of which the first `half` and the next are rotated together.
Bytes rotated(const Level& level, const Case& of, int64_t num_heads, int64_t half) {
    std::mt19937 generator(1);
    const int64_t stride = num_heads * of.width + of.gap;
    Bytes heads = random_values(values_of_rows(of.num_rows, num_heads * of.width, stride), of.bf16, generator);
    const Bytes cos = random_values(of.num_rows * half, of.bf16, generator);
    const Bytes sin = random_values(of.num_rows * half, of.bf16, generator);
    level.rotate(
        {heads.data(), cos.data(), sin.data(), of.num_rows, stride, num_heads, of.width, half, of.bf16}, of.threads);
    return heads;
}

int check(const Case& of) {
    const float error = of.bf16 ? 0.02f : 1e-5f;
    int checked = 0;
    for (const Level& level : LEVELS) {
        if (!can_run(level.name)) continue;
        const std::string what =
            std::string(level.name) + ", " + std::to_string(of.num_rows) + " x " + std::to_string(of.width);
        expect_near(normed(level, of), normed(LEVELS[0], of), of.bf16, error, what + ": rms_norm");
        expect_near(gated(level, of), gated(LEVELS[0], of), of.bf16, error, what + ": swiglu");
        for (int64_t num_heads : {1, 3})
            for (int64_t half : {of.width / 2, of.width / 4})
                expect_near(
                    rotated(level, of, num_heads, half), rotated(LEVELS[0], of, num_heads, half), of.bf16, error,
                    what + ": rotate");
        ++checked;
    }
    return checked;
}

}  // namespace

int main() {
    int checked = 0;
    // The last ones are shared among threads.
    const std::pair<int64_t, int64_t> sizes[] = {{1, 1}, {1, 7}, {3, 16}, {2, 31}, {5, 40}, {1, 100}, {4, 129}, {40, 1030}};
    for (const auto& [num_rows, width] : sizes)
        for (int64_t gap : {0, 3})
            for (bool bf16 : {false, true})
                for (int threads : {1, 2}) checked += check({num_rows, width, gap, bf16, threads});
    std::printf("%d cases\n", checked);
}
