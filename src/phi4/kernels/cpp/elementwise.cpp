// RMSNorm, SwiGLU, the rotation of queries and keys, sums and multiples, each rounded once at its end; the norm twice, as
// in the release.

#include "elementwise.h"

#include <cmath>
#include <cstring>

#include "team.h"

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "vectors.h"

// Below this many values, calling a second thread takes longer than the work.
constexpr int64_t VALUES_FOR_THREADS = 32 * 1024;

inline int threads_for(int64_t values, int threads) { return values >= VALUES_FOR_THREADS ? threads : 1; }

inline float rounded(float value, const float*) { return value; }

inline float rounded(float value, const bf16*) {
    bf16 stored;
    narrow(value, &stored);
    return widen(stored);
}

template <typename T>
void norm_row(const T* input, const T* weight, float eps, int64_t width, T* output) {
    Vector sums = {}, rest = {};
    int64_t n = 0;
    for (; n + LANES <= width; n += LANES) sums += load(input + n) * load(input + n);
    for (int lane = 0; n + lane < width; ++lane) rest[lane] = widen(input[n + lane]);
    sums += rest * rest;
    const float scale = 1.0f / sqrtf(add_up(sums) / static_cast<float>(width) + eps);
    for (int64_t i = 0; i < width; ++i) narrow(widen(weight[i]) * rounded(widen(input[i]) * scale, input), output + i);
}

template <typename T>
void swiglu_row(const T* gate, const T* up, int64_t width, T* output) {
    for (int64_t i = 0; i < width; ++i) {
        const float x = widen(gate[i]);
        const float power = exp_negative(x < 0.0f ? x : -x);
        const float e = x < -87.0f ? 0.0f : power;  // the exponential ends there, and x may be of any size
        const float silu = x * ((x < 0.0f ? e : 1.0f) / (1.0f + e));
        narrow(silu * widen(up[i]), output + i);
    }
}

// The halves stand apart: a compiler that cannot know it takes one pair at a time.
template <typename T>
void rotate_head(T* __restrict first, T* __restrict second, const T* __restrict cos, const T* __restrict sin, int64_t half) {
    for (int64_t i = 0; i < half; ++i) {
        const float a = widen(first[i]), b = widen(second[i]), c = widen(cos[i]), s = widen(sin[i]);
        narrow(a * c - b * s, first + i);
        narrow(b * c + a * s, second + i);
    }
}

template <typename T>
void norm_all(const Rows& rows, const void* weight, float eps, int threads) {
    share(threads_for(rows.num_rows * rows.width, threads), rows.num_rows, [&](int64_t row) {
        norm_row<T>(
            static_cast<const T*>(rows.input) + row * rows.input_stride,
            static_cast<const T*>(weight),
            eps,
            rows.width,
            static_cast<T*>(rows.output) + row * rows.width);
    });
}

template <typename T>
void swiglu_all(const Rows& rows, int threads) {
    share(threads_for(rows.num_rows * rows.width, threads), rows.num_rows, [&](int64_t row) {
        const T* gate = static_cast<const T*>(rows.input) + row * rows.input_stride;
        swiglu_row<T>(gate, gate + rows.width, rows.width, static_cast<T*>(rows.output) + row * rows.width);
    });
}

template <typename T>
void rotate_all(const Rotation& own, int threads) {
    share(threads_for(own.tokens * own.token_stride, threads), own.tokens, [&](int64_t token) {
        for (int64_t head = 0; head < own.num_heads; ++head) {
            T* first = static_cast<T*>(own.heads) + token * own.token_stride + head * own.head_dim;
            const T* cos = static_cast<const T*>(own.cos) + token * own.half;
            const T* sin = static_cast<const T*>(own.sin) + token * own.half;
            rotate_head(first, first + own.half, cos, sin, own.half);
        }
    });
}

template <typename T>
void add_all(const Rows& rows, const T* more, int threads) {
    share(threads_for(rows.num_rows * rows.width, threads), rows.num_rows, [&](int64_t row) {
        const T* input = static_cast<const T*>(rows.input) + row * rows.input_stride;
        const T* own = more + row * rows.width;
        T* output = static_cast<T*>(rows.output) + row * rows.width;
        for (int64_t i = 0; i < rows.width; ++i) narrow(widen(input[i]) + widen(own[i]), output + i);
    });
}

template <typename T>
void scale_all(T* values, int64_t count, float factor) {
    for (int64_t i = 0; i < count; ++i) narrow(widen(values[i]) * factor, values + i);
}

}  // namespace

void rms_norm(const Rows& rows, const void* weight, float eps, int threads) {
    rows.bf16 ? norm_all<bf16>(rows, weight, eps, threads) : norm_all<float>(rows, weight, eps, threads);
}

void swiglu(const Rows& rows, int threads) {
    rows.bf16 ? swiglu_all<bf16>(rows, threads) : swiglu_all<float>(rows, threads);
}

void rotate(const Rotation& rotation, int threads) {
    rotation.bf16 ? rotate_all<bf16>(rotation, threads) : rotate_all<float>(rotation, threads);
}

void add(const Rows& rows, const void* more, int threads) {
    rows.bf16 ? add_all(rows, static_cast<const bf16*>(more), threads) : add_all(rows, static_cast<const float*>(more), threads);
}

void scale(void* values, int64_t count, float factor, bool is_bf16) {
    is_bf16 ? scale_all(static_cast<bf16*>(values), count, factor) : scale_all(static_cast<float*>(values), count, factor);
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
