// A linear layer with what follows it: bias, activation or gate, scale, residual.

#include <cstdlib>

#include "allocate.h"
#include "encoder.h"
#include "packed.h"
#include "team.h"

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

constexpr int PANEL = TILE_VECTORS * LANES;
// Rows that share a packed panel; packing it takes as long as a few of them.
constexpr int64_t BLOCK_ROWS = 1536;

// x times the logistic function of x, or of what GELU in its tanh form has there.
template <Activation ACTIVATION>
inline __m512 activate(__m512 x) {
    if (ACTIVATION == Activation::none) return x;
    if (ACTIVATION == Activation::relu) return _mm512_max_ps(_mm512_setzero_ps(), x);  // NaN comes second and stays
    __m512 slope = x;
    if (ACTIVATION == Activation::gelu) {
        const __m512 cubed = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), _mm512_set1_ps(1.0f));
        slope = _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.5957691216f)), cubed);  // 2 sqrt(2 / pi)
    }
    const __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
    const __m512 power = exponential(_mm512_min_ps(_mm512_sub_ps(zero, slope), slope));  // of -|slope|
    const __mmask16 negative = _mm512_cmp_ps_mask(slope, zero, _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_div_ps(_mm512_mask_mov_ps(one, negative, power), _mm512_add_ps(one, power)));
}

// Sums become results: `count` rows of one panel, which has 64 outputs, or where gated 32 and their gates.
template <Activation ACTIVATION, bool GATED, int ROWS>
inline __attribute__((always_inline)) void finish(
    const Projection& own, const __m512 (&sums)[ROWS][TILE_VECTORS], int64_t count, int64_t row, int64_t output) {
    constexpr int VECTORS = GATED ? TILE_VECTORS / 2 : TILE_VECTORS;
    for (int v = 0; v < VECTORS; ++v) {
        const int64_t first = output + v * LANES, rest = own.outputs - first;
        const __m512 bias = _mm512_maskz_loadu_ps(first_lanes(rest), own.bias + first);
        const __m512 gate_bias = GATED ? _mm512_maskz_loadu_ps(first_lanes(rest), own.bias + own.outputs + first) : bias;
        for (int r = 0; r < count; ++r) {
            const int64_t place = (row + r) * own.outputs + first;
            __m512 result = _mm512_add_ps(sums[r][v], bias);
            if (GATED)
                result = _mm512_mul_ps(result, activate<ACTIVATION>(_mm512_add_ps(sums[r][v + VECTORS], gate_bias)));
            else
                result = activate<ACTIVATION>(result);
            if (own.residual != nullptr)
                result = _mm512_fmadd_ps(
                    result, _mm512_set1_ps(own.scale),
                    load_some(static_cast<const uint16_t*>(own.residual) + place, rest));
            else
                result = _mm512_mul_ps(result, _mm512_set1_ps(own.scale));
            store_some(static_cast<uint16_t*>(own.results) + place, result, rest);
        }
    }
}

#if defined(__AMX_BF16__)
#include "tile_panel.h"
#else
#include "vector_panel.h"
#endif

// Packs the weights of a panel: its outputs, and where gated their gates behind them.
void pack_panel(const Projection& own, int64_t output, uint16_t* packed) {
    const auto* weights = static_cast<const uint16_t*>(own.weights);
    const int outputs = own.gated ? PANEL / 2 : PANEL;
    for (int n = 0; n < PANEL; n += LANES) {
        const int64_t within = output + n % outputs, matrix_row = within + (n < outputs ? 0 : own.outputs);
        const int64_t count = own.outputs - within;
        pack_rows(weights + matrix_row * own.inputs, own.inputs, count, own.inputs, packed + 2 * n, 2 * PANEL);
    }
}

template <Activation ACTIVATION, bool GATED>
void project_all(const Projection& own, int threads) {
    const int64_t outputs = GATED ? PANEL / 2 : PANEL;
    const int64_t panels = (own.outputs + outputs - 1) / outputs;
    const int64_t blocks = (own.num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    with_threads(threads, panels * blocks, [&](Items& items) {
        auto* packed = static_cast<uint16_t*>(allocate(own.inputs * PANEL * sizeof(uint16_t)));
        for_each(items, [&](int64_t item) {
            const int64_t output = item % panels * outputs, first = item / panels * BLOCK_ROWS;
            const int64_t last = first + BLOCK_ROWS < own.num_rows ? first + BLOCK_ROWS : own.num_rows;
            pack_panel(own, output, packed);
            project_panel<ACTIVATION, GATED>(own, packed, first, last, output);
        });
        std::free(packed);
    });
}

template <Activation ACTIVATION>
void project_activated(const Projection& own, int threads) {
    own.gated ? project_all<ACTIVATION, true>(own, threads) : project_all<ACTIVATION, false>(own, threads);
}

}  // namespace

void project(const Projection& projection, int threads) {
    switch (projection.activation) {
        case Activation::none: return project_activated<Activation::none>(projection, threads);
        case Activation::gelu: return project_activated<Activation::gelu>(projection, threads);
        case Activation::silu: return project_activated<Activation::silu>(projection, threads);
        case Activation::relu: return project_activated<Activation::relu>(projection, threads);
    }
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
