// The first highest score of a row and whether all its scores are finite, in one pass over memory.

#include "scores.h"

#include <cmath>
#include <cstring>

#include "team.h"

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "vectors.h"

typedef int32_t Whole __attribute__((vector_size(LANES * sizeof(int32_t))));

// The bits of a float without its sign: from INFINITE_BITS on it is not finite.
constexpr int32_t WITHOUT_SIGN = 0x7fffffff;
constexpr int32_t INFINITE_BITS = 0x7f800000;

// What is known of the beginning of a row.
struct Best {
    float score = -INFINITY;
    int64_t place = 0;
    int32_t largest_bits = 0;  // of all its scores, without their signs
};

inline void compare(Best& best, float score, int64_t place, int32_t bits) {
    // Lanes come in any order of places, so that the first of equal scores need not come first.
    if (score > best.score || (score == best.score && place < best.place)) {
        best.score = score;
        best.place = place;
    }
    best.largest_bits = bits > best.largest_bits ? bits : best.largest_bits;
}

// The best of the whole vectors of a row: each lane keeps the first of its own highest scores.
template <typename T>
Best best_of_vectors(const T* row, int64_t width) {
    Vector highest = Vector{} - INFINITY;
    Whole vectors = {}, largest_bits = {};
    const int32_t count = static_cast<int32_t>(width / LANES);
    for (int32_t n = 0; n < count; ++n) {
        const Vector scores = load(row + static_cast<int64_t>(n) * LANES);
        const Whole higher = scores > highest;
        const Whole bits = reinterpret_cast<Whole>(scores) & WITHOUT_SIGN;
        highest = higher ? scores : highest;
        vectors = higher ? Whole{} + n : vectors;
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    Best best;
    for (int lane = 0; lane < LANES; ++lane)
        compare(best, highest[lane], static_cast<int64_t>(vectors[lane]) * LANES + lane, largest_bits[lane]);
    return best;
}

template <typename T>
Best best_of_row(const T* row, int64_t width) {
    Best best = best_of_vectors(row, width);
    for (int64_t place = width / LANES * LANES; place < width; ++place) {
        const float score = widen(row[place]);
        int32_t bits;
        std::memcpy(&bits, &score, sizeof bits);
        compare(best, score, place, bits & WITHOUT_SIGN);
    }
    return best;
}

template <typename T>
void best_of_rows(const T* values, const Scores& scores, int64_t num_rows, int threads) {
    share(threads, num_rows, [&](int64_t row) {
        const Best best = best_of_row(values + row * scores.stride, scores.width);
        scores.places[row] = best.place;
        scores.finite[row] = best.largest_bits < INFINITE_BITS;
    });
}

}  // namespace

void best_scores(const Scores& scores, int64_t num_rows, int threads) {
    if (scores.bf16)
        best_of_rows(static_cast<const bf16*>(scores.values), scores, num_rows, threads);
    else
        best_of_rows(static_cast<const float*>(scores.values), scores, num_rows, threads);
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
