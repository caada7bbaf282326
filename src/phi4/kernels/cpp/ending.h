// What follows the products of an encoder's linear: bias, activation, a factor, scale and residual. Included into the
// namespace of a level, behind rounding.h and bytes.h, by sources that are compiled without fused products and sums: plain
// torch computes the same bits.

// One lane for each output of a block; a compiler makes the vectors of its level of it.
typedef float Lanes __attribute__((vector_size(BLOCK_OUTPUTS * sizeof(float))));
typedef int32_t WholeLanes __attribute__((vector_size(BLOCK_OUTPUTS * sizeof(int32_t))));

// exp(x) for x <= 0 with a relative error below 2e-7, 0 below -87; NaN stays NaN.
inline Lanes exp_of_negative(Lanes x) {
    const Lanes inside = x < -87.0f ? Lanes{} - 87.0f : x;
    const Lanes n = inside * 1.44269504f + ROUNDING - ROUNDING;
    const WholeLanes power = (__builtin_convertvector(n, WholeLanes) + 127) << 23;
    return x < -87.0f ? Lanes{} : exp_of_rest(inside, n) * reinterpret_cast<Lanes>(power);
}

inline Lanes activate(Lanes x, Activation activation) {
    if (activation == Activation::none) return x;
    if (activation == Activation::relu) return x < 0.0f ? Lanes{} : x;
    Lanes slope = x;
    if (activation == Activation::gelu) slope = x * 1.5957691216f * (x * x * 0.044715f + 1.0f);  // 2 sqrt(2 / pi)
    const Lanes power = exp_of_negative(slope < 0.0f ? slope : -slope);
    return x * ((slope < 0.0f ? power : Lanes{} + 1.0f) / (power + 1.0f));
}

template <typename T>
inline Lanes widen_lanes(const void* source, int64_t place) {
    Lanes wide;
    for (int n = 0; n < BLOCK_OUTPUTS; ++n) wide[n] = widen(static_cast<const T*>(source)[place + n]);
    return wide;
}

template <typename T>
inline Lanes ended(const Ending& own, Lanes sums, int64_t place, int64_t output) {
    if (own.bias != nullptr) {
        Lanes bias;
        std::memcpy(&bias, own.bias + output, sizeof bias);
        sums += bias;
    }
    Lanes result = activate(sums, own.activation);
    if (own.factors != nullptr) result *= widen_lanes<T>(own.factors, place);
    result *= own.scale;
    if (own.residual != nullptr) result += widen_lanes<T>(own.residual, place);
    return result;
}

// `place` is where the block's results go, `output` its first output.
inline Floats end_block(const Ending& own, bool is_bf16, Floats sums, int64_t place, int64_t output) {
    Lanes lanes;
    static_assert(sizeof lanes == sizeof sums);
    std::memcpy(&lanes, &sums, sizeof lanes);
    lanes = is_bf16 ? ended<bf16>(own, lanes, place, output) : ended<float>(own, lanes, place, output);
    std::memcpy(&sums, &lanes, sizeof lanes);
    return sums;
}
