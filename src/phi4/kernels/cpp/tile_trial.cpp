#include "tile_trial.h"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "linear.h"
#include "quantised.h"

namespace phi4 {
namespace {

// Linux gives a process room for tiles only if it asks: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA).
bool system_lends_tiles() {
    constexpr long ASK_FOR_STATE = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) == 0;
}

// One tile of rows and one row more, a span of inputs and a half.
constexpr int64_t NUM_ROWS = 17, GROUPS = 6, INPUTS = GROUPS * GROUP_INPUTS, OUTPUTS = BLOCK_OUTPUTS;

// Small whole numbers that follow no pattern of tiles.
int small_number(int64_t place) { return static_cast<int>(place * 37 % 101 % 15) - 7; }

bool bytes_agree() {
    float rows[NUM_ROWS * INPUTS], scales[NUM_ROWS * spans_of(GROUPS)], output_scales[OUTPUTS], results[2][NUM_ROWS * OUTPUTS];
    int8_t values[NUM_ROWS * INPUTS];
    int32_t offsets[NUM_ROWS * GROUPS];
    uint8_t codes[OUTPUTS * INPUTS];
    for (int64_t n = 0; n < NUM_ROWS * INPUTS; ++n) rows[n] = static_cast<float>(small_number(n));
    for (int64_t n = 0; n < OUTPUTS * INPUTS; ++n) codes[n] = static_cast<uint8_t>(n * 89);
    for (float& scale : output_scales) scale = 1.0f;
    const ByteRows rounded{values, scales, offsets, NUM_ROWS, GROUPS};
    avx512_vnni::quantise_rows(rows, INPUTS, false, rounded, 1);
    avx512_vnni::multiply_quantised({rounded, codes, nullptr, output_scales, results[0], 1, false}, 1);
    amx::quantise_rows(rows, INPUTS, false, rounded, 1);
    amx::multiply_quantised({rounded, codes, nullptr, output_scales, results[1], 1, false}, 1);
    return std::memcmp(results[0], results[1], sizeof results[0]) == 0;
}

// Sums of whole numbers this small are exact in any order.
bool halves_agree() {
    uint16_t rows[NUM_ROWS * INPUTS], weights[OUTPUTS * INPUTS], results[2][NUM_ROWS * OUTPUTS];
    const auto half = [](int64_t place) {
        const float value = static_cast<float>(small_number(place));
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return static_cast<uint16_t>(bits >> 16);
    };
    for (int64_t n = 0; n < NUM_ROWS * INPUTS; ++n) rows[n] = half(n);
    for (int64_t n = 0; n < OUTPUTS * INPUTS; ++n) weights[n] = half(n + 5);
    avx512_bf16::multiply({rows, weights, results[0], INPUTS, OUTPUTS, NUM_ROWS, OUTPUTS, INPUTS, false, true}, 1);
    amx::multiply({rows, weights, results[1], INPUTS, OUTPUTS, NUM_ROWS, OUTPUTS, INPUTS, false, true}, 1);
    return std::memcmp(results[0], results[1], sizeof results[0]) == 0;
}

// Tiles that a virtual machine promises and does not have end whoever uses them: that is left to a child.
bool trial_succeeds() {
    const pid_t child = fork();
    if (child == 0) {
        for (int fault : {SIGILL, SIGSEGV, SIGBUS, SIGFPE}) signal(fault, SIG_DFL);
        _exit(tiles_agree() ? 0 : 1);
    }
    int status = 1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

bool tiles_agree() { return bytes_agree() && halves_agree(); }

bool tiles_work() {
    return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
           __builtin_cpu_supports("amx-bf16") && system_lends_tiles() && trial_succeeds();
}

}  // namespace phi4
