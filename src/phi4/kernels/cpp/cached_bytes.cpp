// How one head of a key or a value becomes bytes when it enters the cache: the same bits as in plain torch.

#include "cached_bytes.h"

#include <cmath>
#include <cstring>

namespace phi4 {
namespace PHI4_LEVEL {
namespace {

#include "numbers.h"
#include "rounding.h"

template <typename T>
void round_typed(const T* source, int head_dim, int8_t* values, float* scales) {
    for (int first = 0; first + GROUP_VALUES <= head_dim; first += GROUP_VALUES)
        round_group<GROUP_VALUES>(source + first, values + first, scales + first / GROUP_VALUES);
    if (head_dim == 16) round_group<16>(source, values, scales);
}

}  // namespace

void round_head(const void* source, bool bf16_source, int head_dim, int8_t* values, float* scales) {
    if (bf16_source)
        round_typed(static_cast<const bf16*>(source), head_dim, values, scales);
    else
        round_typed(static_cast<const float*>(source), head_dim, values, scales);
}

}  // namespace PHI4_LEVEL
}  // namespace phi4
