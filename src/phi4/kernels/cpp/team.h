// Threads that share the work of a kernel. They wait for the next kernel awake for a while: between two products of a
// decoded token, waking a thread would take longer than its work.
#pragma once

#include <cstdint>

namespace phi4 {

// Numbers that the threads of one kernel take in turns.
struct Items;

// Takes some neighbouring numbers, first <= item < last; false if none are left.
bool take(Items& items, int64_t& first, int64_t& last);

// Calls work(own, items) on this thread and on up to `threads - 1` others, until 0 <= item < count are taken; alone while
// the others work for somebody else. No exception leaves it: std::terminate ends the process.
void work_together(int threads, int64_t count, void (*work)(const void* own, Items& items), const void* own);

// Of every source its own: what is compiled with the instructions of one level must not serve another.
namespace {

// Calls start(items) once on every thread, which takes items until none are left.
template <typename Start>
void with_threads(int threads, int64_t count, const Start& start) {
    work_together(
        threads, count, [](const void* own, Items& items) { (*static_cast<const Start*>(own))(items); }, &start);
}

// Calls each(item) for all that this thread can take.
template <typename Each>
void for_each(Items& items, const Each& each) {
    for (int64_t item, last; take(items, item, last);)
        for (; item < last; ++item) each(item);
}

// Calls each(item) for 0 <= item < count, on several threads.
template <typename Each>
void share(int threads, int64_t count, const Each& each) {
    with_threads(threads, count, [&](Items& items) { for_each(items, each); });
}

}  // namespace
}  // namespace phi4
