// A panel of packed weights times rows in vectors. Included by projection.cpp.

template <Activation ACTIVATION, bool GATED>
struct SomeRows {
    const Projection& own;
    const uint16_t* packed;
    int64_t row;
    int64_t output;

    template <int ROWS>
    void tile() const {
        __m512 sums[ROWS][TILE_VECTORS];
        sum_tile<ROWS, TILE_VECTORS>(
            static_cast<const uint16_t*>(own.rows) + row * own.row_stride, own.row_stride, packed, 2 * PANEL,
            own.inputs / 2, sums);
        finish<ACTIVATION, GATED>(own, sums, ROWS, row, output);
    }
};

template <Activation ACTIVATION, bool GATED>
void project_panel(const Projection& own, const uint16_t* packed, int64_t row, int64_t last, int64_t output) {
    for (; row < last; row += TILE_ROWS)
        with_rows(
            last - row < TILE_ROWS ? last - row : TILE_ROWS, SomeRows<ACTIVATION, GATED>{own, packed, row, output});
}
