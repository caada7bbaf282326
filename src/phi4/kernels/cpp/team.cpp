#include "team.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace phi4 {

struct Items {
    std::atomic<int64_t> next;
    int64_t count;
    int64_t together;
};

namespace {

using Work = void (*)(const void* own, Items& items);

// How long a thread waits awake: longer than what Python does between two kernels of a step.
constexpr std::chrono::microseconds AWAKE{200};
constexpr int LOOKS_PER_CLOCK = 64;
// Threads take so many parts each, so that none waits long for another.
constexpr int64_t PARTS = 16;

inline void rest() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

// One set of threads for the whole process. OpenMP keeps one for every thread that calls it, and lets all of them sleep
// at once as soon as they are more than the processor's cores: an engine's thread beside the one that loaded the model.
class Team {
public:
    // False if the threads are at work for somebody else.
    bool run(int threads, Items& items, Work work, const void* own) noexcept {
        const std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return false;
        grow(threads - 1);
        items_ = &items, work_ = work, own_ = own, helpers_ = threads - 1;
        gate_.fetch_and(~CLOSED);
        round_.fetch_add(1);
        round_.notify_all();
        work(own, items);
        // Who has not come by now is not waited for.
        gate_.fetch_or(CLOSED);
        for (int looks = 1; gate_.load() != CLOSED; ++looks) looks % LOOKS_PER_CLOCK ? rest() : std::this_thread::yield();
        return true;
    }

private:
    static constexpr uint32_t CLOSED = 1u << 31;

    void grow(int helpers) {
        for (; size_ < helpers; ++size_) {
            try {
                std::thread(&Team::help, this, size_).detach();
            } catch (const std::system_error&) {
                return;  // the others have more to do
            }
        }
    }

    void help(int index) noexcept {
        for (uint32_t seen = 0;;) {
            seen = wait_for_round_after(seen);
            // The gate counts who is inside: what is read behind it stays until all have left.
            if (!(gate_.fetch_add(1) & CLOSED) && index < helpers_) work_(own_, *items_);
            gate_.fetch_sub(1);
        }
    }

    uint32_t wait_for_round_after(uint32_t seen) {
        const auto end = std::chrono::steady_clock::now() + AWAKE;
        for (int looks = 1; round_.load() == seen; ++looks) {
            rest();
            if (looks % LOOKS_PER_CLOCK != 0) continue;
            if (std::chrono::steady_clock::now() > end) {
                round_.wait(seen);
                break;
            }
            std::this_thread::yield();  // there may be more threads than cores
        }
        return round_.load();
    }

    std::mutex turn_;
    std::atomic<uint32_t> round_ = 0;
    std::atomic<uint32_t> gate_ = CLOSED;
    int size_ = 0;
    // Of the round.
    Items* items_ = nullptr;
    Work work_ = nullptr;
    const void* own_ = nullptr;
    int helpers_ = 0;
};

// Never deleted: its threads live as long as the process. One that was forked has none of them, and gets a new one.
Team* team = nullptr;
std::once_flag made;

Team& the_team() {
    std::call_once(made, [] {
        team = new Team;
        pthread_atfork(nullptr, nullptr, [] { team = new Team; });
    });
    return *team;
}

}  // namespace

bool take(Items& items, int64_t& first, int64_t& last) {
    first = items.next.fetch_add(items.together, std::memory_order_relaxed);
    last = first + items.together < items.count ? first + items.together : items.count;
    return first < last;
}

void work_together(int threads, int64_t count, Work work, const void* own) {
    const int64_t together = count / (PARTS * (threads > 1 ? threads : 1));
    Items items{0, count, together > 1 ? together : 1};
    if (threads < 2 || count < 2 || !the_team().run(threads, items, work, own))
        [&]() noexcept { work(own, items); }();
}

}  // namespace phi4
