// The processor's tiles (AMX): eight registers of 16 rows of 64 bytes, and products of two of them that are added to a
// third. Included into the namespace of a level, behind <immintrin.h>, by sources that are compiled for tiles. The names
// of the operations are the processor's; which tiles they take stands in the instruction, so it cannot be a variable.

constexpr int TILE_SIDE = 16;       // rows, and words of 32 bits in each
constexpr int TILE_ROW_BYTES = 64;
constexpr int NUM_TILES = 8;

// The shapes of all tiles, as the processor reads them.
struct alignas(64) TileShapes {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    constexpr void set(int tile, int num_rows, int bytes) {
        rows[tile] = static_cast<uint8_t>(num_rows);
        row_bytes[tile] = static_cast<uint16_t>(bytes);
    }
};

// Tiles are a thread's own, and are given back where the thread goes on without them: whoever switches threads saves them.
struct Tiles {
    explicit Tiles(const TileShapes& shapes) {
        written();
        _tile_loadconfig(&shapes);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

    // What was written before is in memory: the compiler does not know that tiles are loaded from there.
    static void written() { __asm__ volatile("" ::: "memory"); }
};
