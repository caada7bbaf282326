// The first highest score of each row, and whether all are finite.

#include "scores.h"

#include "cases.h"

namespace {

struct Level {
    const char* name;
    decltype(&phi4::plain::best_scores) best_scores;
};

constexpr Level LEVELS[] = {
    {"plain", phi4::plain::best_scores},
    {"avx2", phi4::avx2::best_scores},
    {"avx512", phi4::avx512::best_scores},
};

struct Case {
    int64_t num_rows, width, gap;
    float last;  // the very last score: higher than all others, or not finite
    bool bf16;

    int64_t stride() const { return width + gap; }
};

Bytes scores_of(const Case& of) {
    std::mt19937 generator(1);
    const int64_t count = values_of_rows(of.num_rows, of.width, of.stride());
    Bytes scores = random_values(count, of.bf16, generator);
    set_value(scores, count - 1, of.bf16, of.last);
    return scores;
}

int64_t first_highest(const Bytes& scores, int64_t first, const Case& of) {
    int64_t place = 0;
    for (int64_t n = 1; n < of.width; ++n)
        if (value_of(scores, first + n, of.bf16) > value_of(scores, first + place, of.bf16)) place = n;
    return place;
}

bool is_right(const Level& level, const Case& of) {
    const Bytes scores = scores_of(of);
    Buffer<int64_t> places(of.num_rows, -1);
    Buffer<uint8_t> finite(of.num_rows, 0xff);
    level.best_scores(
        {scores.data(), of.stride(), of.width, places.data(), reinterpret_cast<bool*>(finite.data()), of.bf16}, of.num_rows,
        2);
    for (int64_t row = 0; row < of.num_rows; ++row) {
        const bool is_finite = row + 1 < of.num_rows || std::isfinite(of.last);
        const bool in_row = places[row] >= 0 && places[row] < of.width;
        const bool is_first = places[row] == first_highest(scores, row * of.stride(), of);
        if (finite[row] != is_finite || !(is_finite ? is_first : in_row)) return false;
    }
    return true;
}

int check(const Case& of) {
    int checked = 0;
    for (const Level& level : LEVELS) {
        if (!can_run(level.name)) continue;
        if (!is_right(level, of)) {
            std::printf("%s, %ld x %ld, %g last: wrong\n", level.name, static_cast<long>(of.num_rows),
                        static_cast<long>(of.width), of.last);
            std::exit(1);
        }
        ++checked;
    }
    return checked;
}

}  // namespace

int main() {
    int checked = 0;
    for (bool end : {false, true}) {
        at_page_end = end;
        for (int64_t num_rows : {1, 3})
            for (int64_t width : {1, 3, 4, 7, 8, 15, 16, 17, 33, 100, 1030})
                for (int64_t gap : {0, 3})
                    for (float last : {3e38f, INFINITY, -INFINITY, NAN})
                        for (bool bf16 : {false, true}) checked += check({num_rows, width, gap, last, bf16});
    }
    std::printf("%d cases\n", checked);
}
