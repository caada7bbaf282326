// What this machine can do at best: reading memory, and summing products of bytes with AVX-512 VNNI.
//
// c++ -O3 -march=native -fopenmp benchmarks/floors.cpp -o floors && ./floors 2

#include <immintrin.h>
#include <omp.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

constexpr size_t BYTES = size_t{1} << 30, PIECE = size_t{1} << 20;

double read_gb_per_second(const char* memory, int threads) {
    const double started = omp_get_wtime();
    long long total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total)
    for (size_t piece = 0; piece < BYTES; piece += PIECE) {
        __m512i sums[4] = {};
        for (size_t place = piece; place < piece + PIECE; place += sizeof sums)
            for (int n = 0; n < 4; ++n)
                sums[n] = _mm512_add_epi64(sums[n], _mm512_load_si512(memory + place + n * sizeof(__m512i)));
        for (const __m512i& sum : sums) total += _mm512_reduce_add_epi64(sum);
    }
    const double seconds = omp_get_wtime() - started;
    return total == 1 ? 0.0 : BYTES / seconds / 1e9;
}

double tera_operations_per_second([[maybe_unused]] int threads) {
#if defined(__AVX512VNNI__)
    constexpr long ROUNDS = 5'000'000;
    constexpr int CHAINS = 12, OPERATIONS = 2 * 64;
    const double started = omp_get_wtime();
    int total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        __m512i sums[CHAINS] = {};
        const __m512i weights = _mm512_set1_epi8(3), inputs = _mm512_set1_epi8(2);
        for (long round = 0; round < ROUNDS; ++round) {
#pragma GCC unroll 12
            for (int n = 0; n < CHAINS; ++n) {
                sums[n] = _mm512_dpbusd_epi32(sums[n], weights, inputs);
                asm volatile("" : "+v"(sums[n]));
            }
        }
        // Unrolled too: a loop over them would keep the sums in memory, and storing them takes longer than the products.
#pragma GCC unroll 12
        for (int n = 0; n < CHAINS; ++n) total += _mm512_reduce_add_epi32(sums[n]);
    }
    const double seconds = omp_get_wtime() - started;
    return total == 1 ? 0.0 : static_cast<double>(ROUNDS) * CHAINS * OPERATIONS * threads / seconds / 1e12;
#else
    return 0.0;
#endif
}

int main(int count, char** arguments) {
    const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
    char* memory = static_cast<char*>(std::aligned_alloc(64, BYTES));
    std::memset(memory, 1, BYTES);
    double read = 0.0, operations = 0.0;
    for (int round = 0; round < 5; ++round) {
        const double again = read_gb_per_second(memory, threads), more = tera_operations_per_second(threads);
        read = again > read ? again : read;
        operations = more > operations ? more : operations;
    }
    std::printf("%.2f %.4f\n", read, operations);
    std::free(memory);
}
