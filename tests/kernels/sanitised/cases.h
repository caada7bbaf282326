// What the programs in this directory share. Each runs kernels at every level that the processor has, on buffers without a
// byte to spare; a test builds them with the address and undefined-behaviour sanitisers.
#pragma once

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

// Whether buffers end at the end of a page, or begin at the beginning of one.
inline bool at_page_end = true;

// Memory between two pages that nobody may touch: the sanitiser does not see what masked instructions load and store, the
// processor does. What is left of a buffer's own pages is for the sanitiser.
template <typename T>
struct Guarded {
    typedef T value_type;
    static constexpr size_t PAGE = 4096;

    static size_t size_of_pages(size_t count) { return (count * sizeof(T) + PAGE - 1) / PAGE * PAGE; }

    T* allocate(size_t count) {
        const size_t size = size_of_pages(count), rest = size - count * sizeof(T);
        void* mapped = mmap(nullptr, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char* pages = static_cast<char*>(mapped) + PAGE;
        if (mapped == MAP_FAILED || mprotect(pages, size, PROT_READ | PROT_WRITE)) std::abort();
        char* values = at_page_end ? pages + rest : pages;
        ASAN_POISON_MEMORY_REGION(at_page_end ? pages : pages + size - rest, rest);
        return reinterpret_cast<T*>(values);
    }

    void deallocate(T* values, size_t count) {
        const size_t size = size_of_pages(count);
        const uintptr_t pages = reinterpret_cast<uintptr_t>(values) / PAGE * PAGE;
        ASAN_UNPOISON_MEMORY_REGION(reinterpret_cast<void*>(pages), size);
        munmap(reinterpret_cast<void*>(pages - PAGE), size + 2 * PAGE);
    }

    bool operator==(const Guarded&) const { return true; }
};

template <typename T>
using Buffer = std::vector<T, Guarded<T>>;
using Bytes = Buffer<uint8_t>;

// Whether the processor has a level's instructions; tiles are emulated.
inline bool can_run(const std::string& level) {
    if (level == "plain") return true;
    if (level == "avx2")
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("fma");
    if (level == "avx512_vnni") return avx512 && __builtin_cpu_supports("avx512vnni");
    if (level == "avx512_bf16") return avx512 && __builtin_cpu_supports("avx512bf16");
    if (level == "amx") return can_run("avx512_vnni") && can_run("avx512_bf16");
    return avx512;
}

inline int64_t value_bytes(bool bf16) { return bf16 ? 2 : 4; }

inline float value_of(const Bytes& values, int64_t place, bool bf16) {
    // The two bytes of a bf16 are the upper ones of a float.
    const int64_t width = value_bytes(bf16);
    float value = 0.0f;
    std::memcpy(reinterpret_cast<char*>(&value) + 4 - width, &values[place * width], width);
    return value;
}

inline void set_value(Bytes& values, int64_t place, bool bf16, float value) {
    const int64_t width = value_bytes(bf16);
    std::memcpy(&values[place * width], reinterpret_cast<const char*>(&value) + 4 - width, width);
}

// A value from -2 to 2.
inline float random_value(std::mt19937& generator) { return std::ldexp(static_cast<int32_t>(generator()), -30); }

inline Bytes random_values(int64_t count, bool bf16, std::mt19937& generator) {
    Bytes values(count * value_bytes(bf16));
    for (int64_t n = 0; n < count; ++n) set_value(values, n, bf16, random_value(generator));
    return values;
}

// Room for results. All its bits are set, which is no number in either type: what is not written is found.
inline Bytes room_for(int64_t count, bool bf16) { return Bytes(count * value_bytes(bf16), 0xff); }

// Values from the first of `rows` rows to the last value of the last one.
inline int64_t values_of_rows(int64_t rows, int64_t width, int64_t stride) { return (rows - 1) * stride + width; }

// Ends the program unless two levels agree, relative to 1 or to the expected value, and all results are numbers.
inline void expect_near(const Bytes& results, const Bytes& expected, bool bf16, float error, const std::string& what) {
    for (int64_t n = 0; n * value_bytes(bf16) < static_cast<int64_t>(expected.size()); ++n) {
        const float own = value_of(results, n, bf16), other = value_of(expected, n, bf16);
        if (std::fabs(own - other) <= error * std::fmax(1.0f, std::fabs(other))) continue;
        std::printf("%s: %g instead of %g at %ld\n", what.c_str(), own, other, static_cast<long>(n));
        std::exit(1);
    }
}
