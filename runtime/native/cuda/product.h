// Products of small matrices on tensor cores, for one warp: how its lanes hold the left operand,
// the right operand and the sums, for each type of tokens. A float32 number is split into two tf32
// numbers, and a float32 product is computed as three tf32 products, which keeps about 21 bits.
//
// A left operand is 16 × depth, a right operand depth × 8, the sums 16 × 8. With g = lane / 4 and
// two = 2·(lane % 4), a lane holds the sums (g, two), (g, two + 1), (g + 8, two), (g + 8, two + 1).
// Layouts: "Matrix Fragments for mma" in NVIDIA's PTX manual.
#pragma once

namespace bsmamba2::cuda {

template <class T> constexpr int depth = 16;
template <> constexpr int depth<float> = 8;

template <class T> struct Left { uint32_t v[4]; };
template <class T> struct Right { uint32_t v[2]; };
template <> struct Left<float> { uint32_t v[4], low[4]; };
template <> struct Right<float> { uint32_t v[2], low[2]; };

template <class Operand>
DEVICE void put(Operand& operand, int i, float v) {
  operand.v[i] = round_to_tf32(v);
  operand.low[i] = round_to_tf32(v - number(operand.v[i]));
}

// sums += a·b
template <class T>
DEVICE void multiply(float (&sums)[4], const Left<T>& a, const Right<T>& b) {
  if constexpr (sizeof(T) == 4) {
    mma(T{}, sums, a.low, b.v);
    mma(T{}, sums, a.v, b.low);
  }
  mma(T{}, sums, a.v, b.v);
}

DEVICE int lane() { return thread() % 32; }

// a(m, k) = rows[m0 + m][k0 + k]
template <class T, int W>
DEVICE Left<T> left(const T (*rows)[W], int m0, int k0) {
  Left<T> a;
  if constexpr (sizeof(T) == 2) {
    load_matrices<false>(a.v, &rows[m0 + lane() % 16][k0 + lane() / 16 * 8]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      put(a, i, rows[m0 + lane() / 4 + i % 2 * 8][k0 + lane() % 4 + i / 2 * 4]);
  }
  return a;
}

// a(m, k) = rows[k0 + k][m0 + m] · scale[k0 + k]
template <class T, int W>
DEVICE Left<T> left_transposed(const T (*rows)[W], const float* scale, int m0, int k0) {
  Left<T> a;
  if constexpr (sizeof(T) == 2) {
    const int i = lane() / 8;
    load_matrices<true>(a.v, &rows[k0 + i / 2 * 8 + lane() % 8][m0 + i % 2 * 8]);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float* two = scale + k0 + j / 2 * 8 + lane() % 4 * 2;
      const float low = widen(T{uint16_t(a.v[j])}), high = widen(T{uint16_t(a.v[j] >> 16)});
      a.v[j] = narrow_two(T{}, low * two[0], high * two[1]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int k = k0 + lane() % 4 + i / 2 * 4;
      put(a, i, rows[k][m0 + lane() / 4 + i % 2 * 8] * scale[k]);
    }
  }
  return a;
}

// a(m, k) = the sums of one tile for float32, or of two adjacent tiles for 16-bit numbers. In
// float32 the columns are permuted; `right_after_sums` permutes its rows in the same way.
template <class T>
DEVICE Left<T> left_of_sums(const float (*sums)[4]) {
  Left<T> a;
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a.v[i] = narrow_two(T{}, sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) put(a, i, sums[0][i % 2 * 2 + i / 2]);
  }
  return a;
}

// Two right operands, of columns n0 … n0 + 15: b(k, n) = rows[n0 + n][k0 + k]
template <class T, int W>
DEVICE void right(Right<T> (&b)[2], const T (*rows)[W], int k0, int n0) {
  if constexpr (sizeof(T) == 2) {
    const int i = lane() / 8;
    uint32_t r[4];
    load_matrices<false>(r, &rows[n0 + i / 2 * 8 + lane() % 8][k0 + i % 2 * 8]);
    b[0] = {r[0], r[1]}, b[1] = {r[2], r[3]};
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      put(b[i / 2], i % 2, rows[n0 + i / 2 * 8 + lane() / 4][k0 + lane() % 4 + i % 2 * 4]);
  }
}

// The same with b(k, n) = rows[k0 + k][n0 + n].
template <class T, bool after_sums = false, int W>
DEVICE void right_transposed(Right<T> (&b)[2], const T (*rows)[W], int k0, int n0) {
  if constexpr (sizeof(T) == 2) {
    const int i = lane() / 8;
    uint32_t r[4];
    load_matrices<true>(r, &rows[k0 + i % 2 * 8 + lane() % 8][n0 + i / 2 * 8]);
    b[0] = {r[0], r[1]}, b[1] = {r[2], r[3]};
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int k = after_sums ? lane() % 4 * 2 + i % 2 : lane() % 4 + i % 2 * 4;
      put(b[i / 2], i % 2, rows[k0 + k][n0 + i / 2 * 8 + lane() / 4]);
    }
  }
}

template <class T, int W>
DEVICE void right_after_sums(Right<T> (&b)[2], const T (*rows)[W], int k0, int n0) {
  right_transposed<T, true>(b, rows, k0, n0);
}

}  // namespace bsmamba2::cuda
