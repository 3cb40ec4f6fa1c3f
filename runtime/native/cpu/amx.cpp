// Products with AMX: a tile register holds a tile of rows, of weights or of sums.
//
// Two tiles of rows by two of columns stay in four registers while the steps are added, so a step
// of bf16x3 loads ten tiles for twelve products. A product takes 16 cycles and a load from the
// first cache 8, so the loads should hide behind the products.
#include <immintrin.h>

#include "cpu/rows.h"

namespace bsmamba2 {
namespace {

// Registers 0 to 3 hold the sums, row by row; 4 and 5 tiles of rows; 6 and 7 tiles of weights. GCC
// takes the numbers only as digits.
template <int row_tiles>
INLINE void load_rows(const uint8_t* tiles, int64_t stride) {
  _tile_loadd(4, tiles, 64);
  if constexpr (row_tiles == 2) _tile_loadd(5, tiles + stride, 64);
}

template <int column_tiles>
INLINE void load_weights(const uint8_t* tiles, int64_t stride) {
  _tile_loadd(6, tiles, 64);
  if constexpr (column_tiles == 2) _tile_loadd(7, tiles + stride, 64);
}

template <int row_tiles, int column_tiles>
INLINE void add_products() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (column_tiles == 2) _tile_dpbf16ps(1, 4, 7);
  if constexpr (row_tiles == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (row_tiles == 2 && column_tiles == 2) _tile_dpbf16ps(3, 5, 7);
}

template <int parts, int row_tiles, int column_tiles>
INLINE void products(const TileCall& t) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const uint8_t *a = t.rows, *b = t.weights;
  for (int64_t s = 0; s < t.steps; ++s, a += parts * tile_bytes, b += parts * tile_bytes) {
    load_rows<row_tiles>(a, t.rows_stride);
    load_weights<column_tiles>(b, t.weights_stride);
    add_products<row_tiles, column_tiles>();
    if constexpr (parts == 2) {
      load_rows<row_tiles>(a + tile_bytes, t.rows_stride);
      add_products<row_tiles, column_tiles>();
      load_rows<row_tiles>(a, t.rows_stride);
      load_weights<column_tiles>(b + tile_bytes, t.weights_stride);
      add_products<row_tiles, column_tiles>();
    }
  }
  float* const below = t.out + tile_rows * t.out_stride;
  const int64_t stride = t.out_stride * 4;
  _tile_stored(0, t.out, stride);
  if constexpr (column_tiles == 2) _tile_stored(1, t.out + tile_columns, stride);
  if constexpr (row_tiles == 2) _tile_stored(2, below, stride);
  if constexpr (row_tiles == 2 && column_tiles == 2) _tile_stored(3, below + tile_columns, stride);
}

template <int parts>
INLINE void products(const TileCall& t) {
  if (t.row_tiles == 2 && t.column_tiles == 2) return products<parts, 2, 2>(t);
  if (t.row_tiles == 2) return products<parts, 2, 1>(t);
  if (t.column_tiles == 2) return products<parts, 1, 2>(t);
  products<parts, 1, 1>(t);
}

void bf16x3(const TileCall& t) { products<2>(t); }
void bf16(const TileCall& t) { products<1>(t); }

// The threads belong to ONNX Runtime, so the registers are configured for each piece of work and
// released after it.
struct alignas(64) Configuration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void enter() {
  static constexpr Configuration all_tiles;
  _tile_loadconfig(&all_tiles);
}
void leave() { _tile_release(); }

}  // namespace

extern const TileProducts amx_products;
const TileProducts amx_products{"amx", pack_rows, bf16x3, bf16, nullptr, enter, leave};

}  // namespace bsmamba2
