// The product of rows with a matrix of numbers.

#include "linear.h"

#include "cases.h"

namespace {

struct Level {
    const char* name;
    decltype(&phi4::plain::multiply) multiply;
};

constexpr Level LEVELS[] = {
    {"plain", phi4::plain::multiply},
    {"avx2", phi4::avx2::multiply},
    {"avx512", phi4::avx512::multiply},
    {"avx512_bf16", phi4::avx512_bf16::multiply},
    {"amx", phi4::amx::multiply},
};

struct Case {
    int64_t num_rows, outputs, inputs, gap;
    bool add, bf16;
    int threads;
};

Bytes results_of(const Level& level, const Case& of) {
    std::mt19937 generator(1);
    const int64_t row_stride = of.inputs + of.gap, result_stride = of.outputs + of.gap;
    const int64_t num_results = values_of_rows(of.num_rows, of.outputs, result_stride);
    const Bytes weights = random_values(of.outputs * of.inputs, of.bf16, generator);
    const Bytes rows = random_values(values_of_rows(of.num_rows, of.inputs, row_stride), of.bf16, generator);
    // What lies between the rows of the results must stay, and be numbers.
    Bytes results = of.add || of.gap ? random_values(num_results, of.bf16, generator) : room_for(num_results, of.bf16);
    level.multiply(
        {rows.data(), weights.data(), results.data(), row_stride, result_stride, of.num_rows, of.outputs, of.inputs, of.add,
         of.bf16},
        of.threads);
    return results;
}

int check(const Case& of) {
    int checked = 0;
    const Bytes expected = results_of(LEVELS[0], of);
    for (const Level& level : LEVELS) {
        if (!can_run(level.name)) continue;
        const std::string what = std::string(level.name) + ", " + std::to_string(of.num_rows) + " x " +
                                 std::to_string(of.outputs) + " x " + std::to_string(of.inputs);
        expect_near(results_of(level, of), expected, of.bf16, of.bf16 ? 0.05f : 1e-4f, what);
        ++checked;
    }
    return checked;
}

// The first rows have the same bits whatever stands behind them.
int check_company(const Level& level, bool bf16) {
    if (!can_run(level.name)) return 0;
    const Bytes all = results_of(level, {67, 40, 100, 0, false, bf16, 1});
    for (int64_t num_rows = 1; num_rows < 67; ++num_rows)
        expect_near(
            all, results_of(level, {num_rows, 40, 100, 0, false, bf16, 1}), bf16, 0.0f,
            std::string(level.name) + ", " + std::to_string(num_rows) + " rows of 67");
    return 66;
}

}  // namespace

int main() {
    int checked = 0;
    for (const Level& level : LEVELS)
        for (bool bf16 : {false, true}) checked += check_company(level, bf16);
    for (int64_t num_rows : {1, 2, 4, 5, 6, 7, 13, 16, 33, 48})
        for (int64_t outputs : {1, 3, 4, 32, 70})
            for (int64_t inputs : {1, 31, 32, 33, 100})
                for (int64_t gap : {0, 3})
                    for (bool bf16 : {false, true}) {
                        const bool add = (num_rows + outputs + inputs) % 2 == 0;
                        checked += check({num_rows, outputs, inputs, gap, add, bf16, 1 + checked / 4 % 2});
                    }
    for (bool bf16 : {false, true}) {
        checked += check({257, 5, 33, 0, false, bf16, 2});   // more than one block of rows
        checked += check({3, 200, 999, 0, false, bf16, 2});  // more than one block of outputs
    }
    std::printf("%d cases\n", checked);
}
