// Memory for what a kernel keeps while it runs.
#pragma once

#include <cstdint>

namespace phi4 {

// At least so many bytes at a multiple of 64; std::free gives them back. Where there are none, std::bad_alloc is thrown, for
// Python a MemoryError; among threads that share work, which no exception leaves, it ends the
// process and says so.
void* allocate(int64_t bytes);

}  // namespace phi4
