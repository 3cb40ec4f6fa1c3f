// The matrix product of the kernels, for the instruction set that this translation unit is compiled
// for (see vector.h).
#pragma once

#include "vector.h"

namespace {

constexpr int panel = V * W;

// The sums of a tile of `rows` rows and `vectors` vectors of columns.
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

  // sums += a · b, over `count` values of k.
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

// Calls body(i, tile) for rows 0 … count - 1, from the last tile to the first. The last tile has
// the count % R rows that remain, the others have R.
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

// Calls to(i, j, W sums) for a · b, rows by columns, with `count` terms per sum. Columns are
// rounded up to whole panels.
template <class To>
INLINE void product(int64_t rows, int64_t columns, int64_t count, const float* a, int64_t a_row,
                    int64_t a_k, const float* b, int64_t b_k, To to) {
  for (int64_t j = 0; j < columns; j += panel)
    each_tile(rows, [&](int64_t i, auto tile) {
      tile.multiply(a + i * a_row, a_row, a_k, b + j, b_k, count);
      tile.each([&](int r, int v, Vec sum) { to(i + r, j + v, sum); });
    });
}

// The products of lower triangular matrices; a · b, if a_ik is zero for k > i:
template <class To>
INLINE void lower_product(int64_t rows, int64_t columns, const float* a, int64_t a_row,
                          const float* b, int64_t b_k, To to) {
  for (int64_t j = 0; j < columns; j += panel)
    each_tile(rows, [&](int64_t i, auto tile) {
      tile.multiply(a + i * a_row, a_row, 1, b + j, b_k, i + tile.rows);
      tile.each([&](int r, int v, Vec sum) { to(i + r, j + v, sum); });
    });
}

// aᵀ · b, for the same a.
template <class To>
INLINE void upper_product(int64_t rows, int64_t columns, const float* a, int64_t a_row,
                          const float* b, int64_t b_k, To to) {
  for (int64_t j = 0; j < columns; j += panel)
    each_tile(rows, [&](int64_t i, auto tile) {
      tile.multiply(a + i * a_row + i, 1, a_row, b + i * b_k + j, b_k, rows - i);
      tile.each([&](int r, int v, Vec sum) { to(i + r, j + v, sum); });
    });
}

// a · b for columns j ≤ i, and for some columns after them.
template <class To>
INLINE void product_below_diagonal(int64_t rows, int64_t count, const float* a, int64_t a_row,
                                   const float* b, int64_t b_k, To to) {
  each_tile(rows, [&](int64_t i, auto tile) {
    constexpr int n = decltype(tile)::rows;
    auto compute = [&](int64_t j, auto part) {
      part.multiply(a + i * a_row, a_row, 1, b + j, b_k, count);
      part.each([&](int r, int v, Vec sum) { to(i + r, j + v, sum); });
    };
    int64_t j = 0;
    for (; j + panel / 2 < i + n; j += panel) compute(j, Tile<n>{});
    if (j < i + n) compute(j, Tile<n, V / 2>{});
  });
}

}  // namespace
