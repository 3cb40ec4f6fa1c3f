// The products in plain C++: the reference of every instruction set, and what tests run on machines
// without the instructions. A float32 sum adds its products one by one, in the order of k; the
// instruction sets add in other orders, and AMX and AVX512-BF16 take denormal values for zero.
#include "cpu/rows.h"

namespace bsmamba2 {
namespace {

// Calls body(rows, weights, out, row scales, column scales, offsets) for each tile.
template <class Body>
INLINE void each_output_tile(const TileCall& t, Body body) {
  for (int i = 0; i < t.row_tiles; ++i)
    for (int j = 0; j < t.column_tiles; ++j)
      body(t.rows + i * t.rows_stride, t.weights + j * t.weights_stride,
           t.out + i * tile_rows * t.out_stride + j * tile_columns, i * tile_rows,
           j * tile_columns);
}

// sums += one tile of rows times one of weights.
INLINE void add_bf16(const uint8_t* rows, const uint8_t* weights, float (&sums)[16][16]) {
  uint32_t row[16][16], weight[16][16];
  memcpy(row, rows, tile_bytes);
  memcpy(weight, weights, tile_bytes);
  for (int r = 0; r < 16; ++r)
    for (int pair = 0; pair < 16; ++pair) {
      const float first = float_of(row[r][pair] << 16);
      const float second = float_of(row[r][pair] & 0xffff0000);
      for (int c = 0; c < 16; ++c) {
        sums[r][c] += first * float_of(weight[pair][c] << 16);
        sums[r][c] += second * float_of(weight[pair][c] & 0xffff0000);
      }
    }
}

template <int parts>
INLINE void bf16_products(const TileCall& t) {
  each_output_tile(t, [&](const uint8_t* a, const uint8_t* b, float* out, int, int) {
    float sums[16][16] = {};
    for (int64_t s = 0; s < t.steps; ++s, a += parts * tile_bytes, b += parts * tile_bytes) {
      add_bf16(a, b, sums);
      if (parts == 2) {
        add_bf16(a + tile_bytes, b, sums);
        add_bf16(a, b + tile_bytes, sums);
      }
    }
    for (int r = 0; r < 16; ++r) memcpy(out + r * t.out_stride, sums[r], 64);
  });
}

void bf16x3(const TileCall& t) { bf16_products<2>(t); }
void bf16(const TileCall& t) { bf16_products<1>(t); }

void int8(const TileCall& t) {
  each_output_tile(t, [&](const uint8_t* a, const uint8_t* b, float* out, int row, int column) {
    int32_t sums[16][16] = {};
    for (int64_t s = 0; s < t.steps; ++s, a += tile_bytes, b += tile_bytes)
      for (int r = 0; r < 16; ++r)
        for (int k = 0; k < 64; ++k)
          for (int c = 0; c < 16; ++c)
            sums[r][c] += a[r * 64 + k] * int8_t(b[k / 4 * 64 + c * 4 + k % 4]);
    for (int r = 0; r < 16; ++r)
      for (int c = 0; c < 16; ++c)
        out[r * t.out_stride + c] = float(sums[r][c] - t.offsets[column + c]) *
                                    t.column_scales[column + c] * t.row_scales[row + r];
  });
}

}  // namespace

extern const TileProducts portable_products;
const TileProducts portable_products{"portable", pack_rows, bf16x3, bf16, int8, nullptr, nullptr};

}  // namespace bsmamba2
