// The conversations of one step: which slots of the cache are theirs, and how their new keys and values get there.
//
// For what calls kernels, not for kernels: it uses the standard library.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "attention.h"
#include "cached_bytes.h"

namespace phi4 {

using Slots = std::pair<int64_t, int64_t>;  // first <= slot < last
// Sums of so many stay within 64 bits, whatever a conversation claims.
constexpr int64_t MOST_SLOTS = int64_t{1} << 40;
using Part = std::tuple<int64_t, int64_t, std::vector<Slots>>;  // new tokens, cached tokens, where they are kept

// The same for all layers.
class Conversations {
public:
    explicit Conversations(const std::vector<Part>& parts) {
        // Exactly as much as is needed: sanitisers see what is read beyond it.
        runs_.reserve(parts.size());
        segments_.reserve(parts.size());
        for (const auto& [length, cached, slots] : parts) {
            std::vector<Run> runs;
            runs.reserve(slots.size());
            int64_t position = 0;
            for (const auto& [first, last] : slots) {
                if (first < 0 || last < first || last > MOST_SLOTS)
                    throw std::invalid_argument(
                        "slots " + std::to_string(first) + " to " + std::to_string(last) + " are in no cache");
                runs.push_back({position, first, last - first});
                position += last - first;
                highest_slot_ = last > highest_slot_ ? last : highest_slot_;
            }
            if (length < 1 || cached < 0 || cached > position || length > position - cached)
                throw std::invalid_argument(
                    "a conversation with " + std::to_string(length) + " new tokens and " + std::to_string(cached) +
                    " before them has " + std::to_string(position) + " slots: fewer slots than tokens, or no new token");
            runs_.push_back(std::move(runs));
            segments_.push_back({num_tokens_, length, cached, nullptr, 0});
            num_tokens_ += length;
        }
        for (size_t n = 0; n < segments_.size(); ++n) {
            segments_[n].runs = runs_[n].data();
            segments_[n].num_runs = static_cast<int64_t>(runs_[n].size());
        }
    }
    // Segments point into it.
    Conversations(const Conversations&) = delete;
    Conversations& operator=(const Conversations&) = delete;

    int64_t num_tokens() const { return num_tokens_; }
    int64_t num_slots() const { return highest_slot_; }
    const std::vector<Segment>& segments() const { return segments_; }

    // Stores the new tokens' keys or values of one layer, `group` of which share a scale. `scales` is null where the
    // storage holds the same type as the rows.
    void write(decltype(&plain::round_head) round_head, const char* rows, int64_t row_bytes, char* storage, float* scales,
               int group, int64_t slots, int kv_heads, int head_dim, bool bf16) const {
        const int64_t head_bytes = head_dim * (bf16 ? 2 : 4), groups = head_dim / group;
        if (scales == nullptr)
            for_new_heads(rows, row_bytes, slots, kv_heads, head_bytes, [=](const char* head, int64_t place) {
                std::memcpy(storage + place * head_bytes, head, head_bytes);
            });
        else
            for_new_heads(rows, row_bytes, slots, kv_heads, head_bytes, [=](const char* head, int64_t place) {
                round_head(head, bf16, head_dim, group, reinterpret_cast<int8_t*>(storage) + place * head_dim,
                           scales + place * groups);
            });
    }

private:
    // Calls store(values, place) for each head of each new token, `place` counted in heads of the storage.
    template <typename Store>
    void for_new_heads(const char* rows, int64_t row_bytes, int64_t slots, int kv_heads, int64_t head_bytes,
                       Store store) const {
        for (const Segment& segment : segments_)
            for (int64_t n = 0; n < segment.num_runs; ++n) {
                const Run& run = segment.runs[n];
                const int64_t old = segment.cached - run.position;
                for (int64_t slot = run.slot + (old > 0 ? old : 0); slot < run.slot + run.count; ++slot) {
                    const int64_t token = run.position + slot - run.slot - segment.cached;
                    if (token >= segment.length) break;
                    const char* row = rows + (segment.row + token) * row_bytes;
                    for (int head = 0; head < kv_heads; ++head)
                        store(row + head * head_bytes, head * slots + slot);
                }
            }
    }

    std::vector<std::vector<Run>> runs_;
    std::vector<Segment> segments_;
    int64_t num_tokens_ = 0;
    int64_t highest_slot_ = 0;
};

}  // namespace phi4
