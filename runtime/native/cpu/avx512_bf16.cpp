// Products with AVX512-BF16: one instruction multiplies a pair of a row's values by pairs of 16
// columns. Three of them take longer than float32, so there is only bf16.
#include <immintrin.h>

#include "cpu/rows.h"

namespace bsmamba2 {
namespace {

INLINE void output_tile(const uint8_t* a, const uint8_t* b, int64_t steps, float* out,
                        int64_t out_stride) {
  __m512 sums[16];
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) sums[r] = _mm512_setzero_ps();
  for (int64_t s = 0; s < steps; ++s, a += tile_bytes, b += tile_bytes)
    for (int pair = 0; pair < 16; ++pair) {
      const __m512bh weights = (__m512bh)_mm512_loadu_si512(b + pair * 64);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) {
        int32_t values;
        memcpy(&values, a + r * 64 + pair * 4, 4);
        sums[r] = _mm512_dpbf16_ps(sums[r], weights, (__m512bh)_mm512_set1_epi32(values));
      }
    }
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) _mm512_storeu_ps(out + r * out_stride, sums[r]);
}

void bf16(const TileCall& t) {
  for (int j = 0; j < t.column_tiles; ++j)
    for (int i = 0; i < t.row_tiles; ++i)
      output_tile(t.rows + i * t.rows_stride, t.weights + j * t.weights_stride, t.steps,
                  t.out + i * tile_rows * t.out_stride + j * tile_columns, t.out_stride);
}

}  // namespace

extern const TileProducts avx512_bf16_products;
const TileProducts avx512_bf16_products{"avx512_bf16", pack_rows, nullptr, bf16,
                                        nullptr,       nullptr,   nullptr};

}  // namespace bsmamba2
