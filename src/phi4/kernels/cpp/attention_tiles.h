// How a step's attention is cut into work for threads. Included into the namespace of a level.

// Keys that a query meets together, counted from the beginning of its conversation.
constexpr int KEY_BLOCK = 64;

// Finds the slots of the tokens first <= position < last of a conversation.
inline void find_slots(const Segment& segment, int64_t first, int64_t last, int64_t* slots) {
    // The last run that begins at `first` or before it: runs stand in the order of their positions.
    int64_t n = 0;
    for (int64_t behind = segment.num_runs; behind - n > 1;) {
        const int64_t middle = n + (behind - n) / 2;
        (segment.runs[middle].position <= first ? n : behind) = middle;
    }
    for (; n < segment.num_runs && segment.runs[n].position < last; ++n) {
        const Run& run = segment.runs[n];
        const int64_t low = run.position > first ? run.position : first;
        const int64_t high = run.position + run.count < last ? run.position + run.count : last;
        for (int64_t position = low; position < high; ++position)
            slots[position - first] = run.slot + position - run.position;
    }
}

// Calls attend(segment, first, tokens, kv_head) for some neighbouring new tokens of a conversation, `tile_tokens` at most,
// and all query heads of one key head.
template <typename Attend>
void for_each_tile(
    const Layer& layer, const Segment* segments, int64_t num_segments, int64_t tile_tokens, int threads, Attend attend) {
    // Long tiles first would balance better; segments come as they are.
    int64_t num_tiles = 0;
    for (int64_t n = 0; n < num_segments; ++n) num_tiles += (segments[n].length + tile_tokens - 1) / tile_tokens;
    struct Tile {
        int64_t segment, first, tokens;
    };
    auto* tiles = static_cast<Tile*>(allocate(num_tiles * sizeof(Tile)));
    int64_t at = 0;
    for (int64_t n = 0; n < num_segments; ++n)
        for (int64_t first = 0; first < segments[n].length; first += tile_tokens) {
            const int64_t rest = segments[n].length - first;
            tiles[at++] = {n, first, rest < tile_tokens ? rest : tile_tokens};
        }
    const int64_t num_items = num_tiles * layer.kv_heads;
    share(threads, num_items, [&](int64_t item) {
        const Tile& tile = tiles[item / layer.kv_heads];
        attend(segments[tile.segment], tile.first, tile.tokens, static_cast<int>(item % layer.kv_heads));
    });
    std::free(tiles);
}
