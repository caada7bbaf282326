// As many floats as a register of this level holds. Included into the namespace of a level, behind numbers.h.

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef float Four __attribute__((vector_size(4 * sizeof(float))));

inline Vector load(const float* source) {
    Vector wide;
    std::memcpy(&wide, source, sizeof wide);
    return wide;
}

inline Vector load(const bf16* source) {
    typedef uint16_t Narrow __attribute__((vector_size(LANES * sizeof(uint16_t))));
    typedef uint32_t Wide __attribute__((vector_size(LANES * sizeof(uint32_t))));
    Narrow bits;
    std::memcpy(&bits, source, sizeof bits);
    return reinterpret_cast<Vector>(__builtin_convertvector(bits, Wide) << 16);
}

// Adds up the lanes of four vectors, each as a tree: with the lane half a vector further, a quarter, and so on.
inline Four add_up(const Vector& a, const Vector& b, const Vector& c, const Vector& d) {
#if defined(__AVX512F__)
    const Vector ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                      __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    const Vector cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                      __builtin_shufflevector(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    Vector all = __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                 __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    all += __builtin_shufflevector(all, all, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    all += __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    return __builtin_shufflevector(all, all, 0, 4, 8, 12);
#elif defined(__AVX2__)
    const Vector ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
                      __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    const Vector cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 8, 9, 10, 11) +
                      __builtin_shufflevector(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
    Vector all = __builtin_shufflevector(ab, cd, 0, 1, 4, 5, 8, 9, 12, 13) +
                 __builtin_shufflevector(ab, cd, 2, 3, 6, 7, 10, 11, 14, 15);
    all += __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6);
    return __builtin_shufflevector(all, all, 0, 2, 4, 6);
#else
    const Vector ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    const Vector cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
#endif
}

// The same for one vector.
inline float add_up(const Vector& sums) {
    const Vector none = {};
    return add_up(sums, none, none, none)[0];
}
