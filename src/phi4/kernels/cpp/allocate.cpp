#include "allocate.h"

#include <cstdlib>
#include <new>

namespace phi4 {

void* allocate(int64_t bytes) {
    // Whole units of 64 as the standard asks, and at least one: null would be right for none.
    const int64_t units = bytes > 64 ? (bytes + 63) / 64 : 1;
    void* room = std::aligned_alloc(64, static_cast<size_t>(units) * 64);
    if (room == nullptr) throw std::bad_alloc();
    return room;
}

}  // namespace phi4
