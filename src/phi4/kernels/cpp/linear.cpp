// Rows times a transposed weight matrix, for one row and for thousands, summed in fp32.
//
// Every result is computed by itself, in an order that only the number of inputs decides: LANES partial sums over the
// inputs in their order, added up as a tree. How many rows there are, what stands in them, and the number of threads
// change no bit. The weights are read as they are stored.

#include "linear.h"

#include <cmath>
#include <cstring>

#include "team.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "vectors.h"

// A tile of results is summed in registers, as many vectors as there are beside those that are being multiplied.
#if defined(__AVX512F__)
constexpr int TILE_ROWS = 6;
#elif defined(__AVX2__)
constexpr int TILE_ROWS = 3;
#else
constexpr int TILE_ROWS = 2;
#endif
constexpr int TILE_OUTPUTS = 4;

// Weights that stay in the second-level cache while all rows pass by.
constexpr int64_t BLOCK_BYTES = 192 * 1024;
constexpr int64_t BLOCK_ROWS = 256;

// Adds up the products of some inputs, STEP at a time.
template <typename T>
struct Sums {
    static constexpr int STEP = LANES;
    typedef Vector Inputs;
    static Inputs read(const T* source) { return load(source); }
    static void add(Vector& sum, const Inputs& row, const Inputs& weight) { sum += row * weight; }
};

#if defined(__AVX512BF16__)
template <>
struct Sums<bf16> {
    static constexpr int STEP = 2 * LANES;
    typedef __m512bh Inputs;
    static Inputs read(const bf16* source) {
        return reinterpret_cast<__m512bh>(_mm512_loadu_si512(source));
    }
    static void add(Vector& sum, const Inputs& row, const Inputs& weight) {
        sum = reinterpret_cast<Vector>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), row, weight));
    }
};
#endif

typedef uint32_t FourBits __attribute__((vector_size(4 * sizeof(uint32_t))));

inline void narrow(const Four& values, float* results) { std::memcpy(results, &values, sizeof values); }

// As for one number (numbers.h).
inline void narrow(const Four& values, bf16* results) {
    typedef uint16_t Narrow __attribute__((vector_size(4 * sizeof(uint16_t))));
    const FourBits bits = reinterpret_cast<FourBits>(values);
    const FourBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const FourBits nan = FourBits{0x7fc0, 0x7fc0, 0x7fc0, 0x7fc0};
    const Narrow narrow = __builtin_convertvector(values != values ? nan : rounded, Narrow);
    std::memcpy(results, &narrow, sizeof narrow);
}

template <typename T>
inline Four widen_four(const T* source) {
    return Four{widen(source[0]), widen(source[1]), widen(source[2]), widen(source[3])};
}

// ROWS x OUTPUTS results. Where `FRESH`, the weights come from memory, and rows of them are too short for the processor to
// see where the next ones will come from.
template <typename T, int ROWS, int OUTPUTS, bool FRESH>
void multiply_tile(const Product& product, int64_t first_row, int64_t first_output) {
    using Own = Sums<T>;
    const int64_t inputs = product.inputs, whole = inputs - inputs % Own::STEP;
    const T* rows = static_cast<const T*>(product.rows) + first_row * product.row_stride;
    const T* weights = static_cast<const T*>(product.weights) + first_output * inputs;
    Vector sums[ROWS][OUTPUTS] = {};
    for (int64_t input = 0; input < whole; input += Own::STEP) {
        typename Own::Inputs row[ROWS];
        for (int r = 0; r < ROWS; ++r) row[r] = Own::read(rows + r * product.row_stride + input);
        for (int o = 0; o < OUTPUTS; ++o) {
            if (FRESH) __builtin_prefetch(weights + (o + OUTPUTS) * inputs + input);
            const typename Own::Inputs weight = Own::read(weights + o * inputs + input);
            for (int r = 0; r < ROWS; ++r) Own::add(sums[r][o], row[r], weight);
        }
    }
    if (whole < inputs) {
        T row_rest[ROWS][Own::STEP] = {}, weight_rest[Own::STEP] = {};
        const int64_t bytes = (inputs - whole) * sizeof(T);
        for (int r = 0; r < ROWS; ++r) std::memcpy(row_rest[r], rows + r * product.row_stride + whole, bytes);
        for (int o = 0; o < OUTPUTS; ++o) {
            std::memcpy(weight_rest, weights + o * inputs + whole, bytes);
            const typename Own::Inputs weight = Own::read(weight_rest);
            for (int r = 0; r < ROWS; ++r) Own::add(sums[r][o], Own::read(row_rest[r]), weight);
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        T* results = static_cast<T*>(product.results) + (first_row + r) * product.result_stride + first_output;
        const Vector none = {};
        Four four = add_up(
            sums[r][0], OUTPUTS > 1 ? sums[r][1] : none, OUTPUTS > 2 ? sums[r][2] : none, OUTPUTS > 3 ? sums[r][3] : none);
        if (OUTPUTS == 4) {
            if (product.add) four += widen_four(results);
            narrow(four, results);
        } else {
            for (int o = 0; o < OUTPUTS; ++o)
                narrow(four[o] + (product.add ? widen(results[o]) : 0.0f), results + o);
        }
    }
}

template <typename T, int ROWS, bool FRESH>
void multiply_rows(const Product& product, int64_t row, int64_t first_output, int64_t last_output) {
    int64_t output = first_output;
    for (; output + TILE_OUTPUTS <= last_output; output += TILE_OUTPUTS)
        multiply_tile<T, ROWS, TILE_OUTPUTS, FRESH>(product, row, output);
    for (; output < last_output; ++output) multiply_tile<T, ROWS, 1, FRESH>(product, row, output);
}

// All results of a block of outputs, for some rows.
template <typename T>
void multiply_block(const Product& product, int64_t row, int64_t last_row, int64_t first_output, int64_t last_output) {
    if (row + TILE_ROWS <= last_row) {
        multiply_rows<T, TILE_ROWS, true>(product, row, first_output, last_output);
        row += TILE_ROWS;
    }
    for (; row + TILE_ROWS <= last_row; row += TILE_ROWS)
        multiply_rows<T, TILE_ROWS, false>(product, row, first_output, last_output);
    switch (last_row - row) {
#if defined(__AVX512F__)
        case 5: return multiply_rows<T, 5, true>(product, row, first_output, last_output);
        case 4: return multiply_rows<T, 4, true>(product, row, first_output, last_output);
        case 3: return multiply_rows<T, 3, true>(product, row, first_output, last_output);
#endif
#if defined(__AVX2__)
        case 2: return multiply_rows<T, 2, true>(product, row, first_output, last_output);
#endif
        case 1: return multiply_rows<T, 1, true>(product, row, first_output, last_output);
    }
}

template <typename T>
void multiply_all(const Product& product, int threads) {
    int64_t block = BLOCK_BYTES / (product.inputs * static_cast<int64_t>(sizeof(T)) * TILE_OUTPUTS) * TILE_OUTPUTS;
    if (block < TILE_OUTPUTS) block = TILE_OUTPUTS;
    const int64_t output_blocks = (product.outputs + block - 1) / block;
    const int64_t row_blocks = (product.num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    share(threads, row_blocks * output_blocks, [&](int64_t item) {
        const int64_t first_output = item % output_blocks * block, row_block = item / output_blocks * BLOCK_ROWS;
        const int64_t last_output = first_output + block < product.outputs ? first_output + block : product.outputs;
        const int64_t last_row = row_block + BLOCK_ROWS < product.num_rows ? row_block + BLOCK_ROWS : product.num_rows;
        multiply_block<T>(product, row_block, last_row, first_output, last_output);
    });
}

}  // namespace

void multiply(const Product& product, int threads) {
    if (product.bf16)
        multiply_all<bf16>(product, threads);
    else
        multiply_all<float>(product, threads);
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
