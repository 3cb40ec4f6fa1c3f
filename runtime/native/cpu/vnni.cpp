// Products with VNNI: one instruction multiplies four of a row's integers by four of each column
// and adds the four products to the column's sum. Compiled for AVX512-VNNI, with 16 columns in a
// register, and for AVX-VNNI, with 8.
#include <immintrin.h>

#include "cpu/rows.h"

namespace bsmamba2 {
namespace {

#if defined(__AVX512VNNI__)
constexpr int columns = 16, rows_together = 16;
using Sums = __m512i;
using Scales = __m512;
INLINE Sums none() { return _mm512_setzero_si512(); }
INLINE Sums load(const void* p) { return _mm512_loadu_si512(p); }
INLINE Sums all(int32_t x) { return _mm512_set1_epi32(x); }
INLINE Sums add(Sums sums, Sums row, Sums weights) { return _mm512_dpbusd_epi32(sums, row, weights); }
INLINE void store(float* out, Sums sums, const int32_t* offsets, const float* columns, float row) {
  const Scales values = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, load(offsets)));
  const Scales scaled = _mm512_mul_ps(values, _mm512_loadu_ps(columns));
  _mm512_storeu_ps(out, _mm512_mul_ps(scaled, _mm512_set1_ps(row)));
}
#else
constexpr int columns = 8, rows_together = 4;
using Sums = __m256i;
using Scales = __m256;
INLINE Sums none() { return _mm256_setzero_si256(); }
INLINE Sums load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
INLINE Sums all(int32_t x) { return _mm256_set1_epi32(x); }
INLINE Sums add(Sums sums, Sums row, Sums weights) {
  return _mm256_dpbusd_avx_epi32(sums, row, weights);
}
INLINE void store(float* out, Sums sums, const int32_t* offsets, const float* columns, float row) {
  const Scales values = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, load(offsets)));
  const Scales scaled = _mm256_mul_ps(values, _mm256_loadu_ps(columns));
  _mm256_storeu_ps(out, _mm256_mul_ps(scaled, _mm256_set1_ps(row)));
}
#endif
constexpr int vectors = tile_columns / columns;

// `rows_together` rows of one tile of the output.
INLINE void output_rows(const TileCall& t, const uint8_t* a, const uint8_t* b, int row,
                        int column) {
  Sums sums[rows_together][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows_together; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sums[r][v] = none();
  for (int64_t s = 0; s < t.steps; ++s, a += tile_bytes, b += tile_bytes)
    for (int four = 0; four < 16; ++four) {
      Sums weights[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) weights[v] = load(b + four * 64 + v * columns * 4);
#pragma GCC unroll 16
      for (int r = 0; r < rows_together; ++r) {
        int32_t values;
        memcpy(&values, a + r * 64 + four * 4, 4);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sums[r][v] = add(sums[r][v], all(values), weights[v]);
      }
    }
#pragma GCC unroll 16
  for (int r = 0; r < rows_together; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      const int at = column + v * columns;
      store(t.out + (row + r) * t.out_stride + at, sums[r][v], t.offsets + at,
            t.column_scales + at, t.row_scales[row + r]);
    }
}

void int8(const TileCall& t) {
  for (int j = 0; j < t.column_tiles; ++j)
    for (int row = 0; row < t.row_tiles * tile_rows; row += rows_together)
      output_rows(t, t.rows + row / tile_rows * t.rows_stride + row % tile_rows * 64,
                  t.weights + j * t.weights_stride, row, j * tile_columns);
}

}  // namespace

extern const TileProducts BSMAMBA2_PRODUCTS;
const TileProducts BSMAMBA2_PRODUCTS{BSMAMBA2_PRODUCTS_NAME, pack_rows, nullptr, nullptr, int8,
                                     nullptr, nullptr};

}  // namespace bsmamba2
