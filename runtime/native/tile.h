// The one matrix product of the kernels, for the instruction set that this translation unit is
// compiled for (see vector.h).
#pragma once

#include "vector.h"

namespace {

constexpr int panel = V * W;

// A tile of rows by columns: sums += a · b over k.
template <int row_count, int vectors = V>
struct Tile {
  static constexpr int rows = row_count;
  Vec sums[rows][vectors];

  INLINE Tile() {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = Vec{};
  }

  INLINE void multiply(const float* a, int64_t a_row, int64_t a_k, const float* b, int64_t b_k,
                       int64_t count) {
    for (int64_t k = 0; k < count; ++k, a += a_k, b += b_k) {
      Vec column[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) column[v] = load(b + v * W);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        Vec row = all(a[r * a_row]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sums[r][v] += row * column[v];
      }
    }
  }

  // Calls body(row, column, W sums).
  template <class Body>
  INLINE void each(Body body) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) body(r, v * W, sums[r][v]);
  }
};

// Calls body(i, tile) for the rows 0 … count - 1 from the last to the first: what is left over R in
// one tile, then R at a time.
template <int n, class Body>
INLINE void last_tile(int64_t i, int64_t rows, Body body) {
  if (rows == n) return body(i, Tile<n>{});
  if constexpr (n > 1) last_tile<n - 1>(i, rows, body);
}
template <class Body>
INLINE void each_tile(int64_t count, Body body) {
  int64_t i = count / R * R;
  last_tile<R - 1>(i, count - i, body);
  while ((i -= R) >= 0) body(i, Tile<R>{});
}

}  // namespace
