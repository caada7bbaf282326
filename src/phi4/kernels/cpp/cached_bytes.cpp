// How one head of a key or a value becomes bytes when it enters the cache: the same bits as in plain torch.

#include "cached_bytes.h"

#include <cmath>
#include <cstring>

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "rounding.h"

template <int GROUP, typename T>
void round_groups(const T* source, int head_dim, int8_t* values, float* scales) {
    for (int first = 0; first < head_dim; first += GROUP)
        round_group<GROUP>(source + first, values + first, scales + first / GROUP);
}

template <typename T>
void round_typed(const T* source, int head_dim, int group, int8_t* values, float* scales) {
    switch (group) {
        case 16: return round_groups<16>(source, head_dim, values, scales);
        case 32: return round_groups<32>(source, head_dim, values, scales);
        case 64: return round_groups<64>(source, head_dim, values, scales);
        case 96: return round_groups<96>(source, head_dim, values, scales);
        case 128: return round_groups<128>(source, head_dim, values, scales);
    }
}

}  // namespace

void round_head(const void* source, bool bf16_source, int head_dim, int group, int8_t* values, float* scales) {
    if (bf16_source)
        round_typed(static_cast<const bf16*>(source), head_dim, group, values, scales);
    else
        round_typed(static_cast<const float*>(source), head_dim, group, values, scales);
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
