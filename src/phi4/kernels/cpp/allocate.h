// Memory for what a kernel keeps while it runs.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace phi4 {

// At least so many bytes at a multiple of 64; std::free gives them back. Where there are none, std::bad_alloc is thrown, for
// Python a MemoryError; among threads that share work, which no exception leaves, it ends the
// process and says so.
void* allocate(int64_t bytes);

// Memory that is given back at the end; nothing stands in it yet.
class Room {
public:
    explicit Room(int64_t bytes) : memory_(allocate(bytes)) {}
    ~Room() { std::free(memory_); }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    char* get() const { return static_cast<char*>(memory_); }

private:
    void* memory_;
};

}  // namespace phi4
