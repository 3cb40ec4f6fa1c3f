// A vector of W floats and the functions on it that the scan needs, for the instruction set that
// this translation unit is compiled for. Everything is in an anonymous namespace, and no function
// of the standard library is called: the linker would merge an inline function with that of another
// instruction set's object, and a machine without AVX-512 could run the AVX-512 copy.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

// A tile of R rows and V vectors of sums stays in registers. It uses R·V + V + 1 of them.
#if defined(__AVX512F__)
constexpr int W = 16, V = 4;
#elif defined(__AVX2__)
constexpr int W = 8, V = 2;
#elif defined(__aarch64__)
constexpr int W = 4, V = 4;
#else
constexpr int W = 4, V = 2;
#endif
constexpr int R = 6;

typedef float Vec __attribute__((vector_size(W * 4)));
typedef int32_t Ints __attribute__((vector_size(W * 4)));
typedef Vec VecAnywhere __attribute__((aligned(4), may_alias));

INLINE Vec load(const float* p) { return *reinterpret_cast<const VecAnywhere*>(p); }
INLINE void store(float* p, Vec v) { *reinterpret_cast<VecAnywhere*>(p) = v; }
INLINE Vec all(float x) { return x - Vec{}; }
INLINE Vec bits(Ints i) { Vec v; memcpy(&v, &i, sizeof v); return v; }
INLINE Ints bits(Vec v) { Ints i; memcpy(&i, &v, sizeof i); return i; }

// Stores a whole vector, at an aligned address, that will not be read soon. The cache line is not
// read first, which saves a tenth of the time of a scan larger than the caches. Other threads see
// the values after a fence.
#if defined(__AVX512F__)
INLINE void store_past_caches(float* p, Vec v) { _mm512_stream_ps(p, v); }
#elif defined(__AVX2__)
INLINE void store_past_caches(float* p, Vec v) { _mm256_stream_ps(p, v); }
#else
INLINE void store_past_caches(float* p, Vec v) { store(p, v); }
#endif
#if defined(__AVX2__)
INLINE void fence() { _mm_sfence(); }
#else
INLINE void fence() {}
#endif

// Load or store the first `count` of W values. The others load as zero and are not stored.
INLINE Vec load(const float* p, int64_t count) {
  Vec v{};
  memcpy(&v, p, size_t(count) * 4);
  return v;
}
INLINE void store(float* p, Vec v, int64_t count) { memcpy(p, &v, size_t(count) * 4); }

// Calls body(i, Whole{}) for each full vector of `count` values, then body(i, n) for the n values
// that remain.
struct Whole {};
INLINE Vec load(const float* p, Whole) { return load(p); }
INLINE void store(float* p, Vec v, Whole) { store(p, v); }

template <class Body>
INLINE void each_vector(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + W <= count; i += W) body(i, Whole{});
  if (i < count) body(i, count - i);
}

INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE void add(float* to, Vec v) { store(to, load(to) + v); }

// The first or second half of a vector, in double.
typedef float HalfVec __attribute__((vector_size(W * 2)));
typedef double Doubles __attribute__((vector_size(W * 4)));
typedef int64_t Longs __attribute__((vector_size(W * 4)));

INLINE Doubles widened(const float* p) {
  HalfVec v;
  memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Doubles);
}

// Sums pair by pair: a sum one by one would wait for each addition.
template <class T, int n>
INLINE T sum(const T (&v)[n]) {
  if constexpr (n == 1) return v[0];
  else {
    T half[n / 2];
    for (int l = 0; l < n / 2; ++l) half[l] = v[l] + v[l + n / 2];
    return sum(half);
  }
}
INLINE float sum(Vec v) { float values[W]; memcpy(values, &v, sizeof v); return sum(values); }
INLINE double sum(Doubles v) { double values[W / 2]; memcpy(values, &v, sizeof v); return sum(values); }

// The dot product of whole vectors, summed in double.
INLINE double dot(const float* a, const float* b, int64_t count) {
  Doubles low{}, high{};
  for (int64_t i = 0; i < count; i += W) {
    low += widened(a + i) * widened(b + i);
    high += widened(a + i + W / 2) * widened(b + i + W / 2);
  }
  return sum(low + high);
}

// Minimum and maximum that propagate a NaN in their second argument, and 1 / x to the accuracy of
// float32 for normal results. A hardware estimate with one Newton step is three times faster than a
// division.
#if defined(__AVX512F__)
INLINE Vec smaller(Vec a, Vec b) { return _mm512_min_ps(a, b); }
INLINE Vec larger(Vec a, Vec b) { return _mm512_max_ps(a, b); }
INLINE Vec reciprocal(Vec x) { Vec r = _mm512_rcp14_ps(x); return r * (2.0f - x * r); }
#elif defined(__AVX2__)
INLINE Vec smaller(Vec a, Vec b) { return _mm256_min_ps(a, b); }
INLINE Vec larger(Vec a, Vec b) { return _mm256_max_ps(a, b); }
INLINE Vec reciprocal(Vec x) { Vec r = _mm256_rcp_ps(x); return r * (2.0f - x * r); }
#else
INLINE Vec smaller(Vec a, Vec b) { return a < b ? a : b; }
INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }
INLINE Vec reciprocal(Vec x) { return 1.0f / x; }
#endif

// exp(sign · x) = 2ⁿ·exp(r), where n is the integer nearest to sign · x / ln 2 and |r| ≤ ln(2) / 2.
// Adding 1.5·2²³, whose last bit has the value 1, rounds to n; exp(r) is a polynomial. x is clamped
// to ±87 so that 2ⁿ is a normal number; a decay of e⁻⁸⁷ is effectively zero.
struct Power {
  Vec shifted, r;
  INLINE Power(Vec x, float sign) {
    x = larger(all(-87.0f), smaller(all(87.0f), x));
    const Vec shifter = all(12582912.0f);
    shifted = x * (sign * 1.442695041f) + shifter;
    r = x * sign - (shifted - shifter) * 0.693147181f;
  }
  INLINE Vec times(Vec q) const { return bits(bits(q) + (bits(shifted) << 23)); }
};

// Accurate to 2e-9 plus rounding, because errors of decays accumulate along a segment.
INLINE Vec exp(Vec x) {
  const Power power(x, 1);
  const Vec r = power.r;
  Vec q = r * 1.384355990e-3f + 8.374236094e-3f;
  q = q * r + 4.166800743e-2f;
  q = q * r + 1.666643034e-1f;
  q = q * r + 4.999999417e-1f;
  q = q * r + 1.0f;
  return power.times(q * r + 1.0f);
}

// x / (1 + e⁻ˣ), with the exponential accurate to 9e-8.
INLINE Vec silu(Vec x) {
  const Power power(x, -1);
  const Vec r = power.r;
  Vec q = r * 8.290229414e-3f + 4.189839102e-2f;
  q = q * r + 1.666764007e-1f;
  q = q * r + 4.999914614e-1f;
  q = q * r + 9.999997054e-1f;
  return x * reciprocal(1.0f + power.times(q * r + 1.0f));
}

INLINE Vec sigmoid(Vec x) { return reciprocal(1.0f + exp(-x)); }
INLINE Vec silu_slope(Vec x) {
  const Vec g = sigmoid(x);
  return g * (1.0f + x * (1.0f - g));
}

// log(1 + eˣ) = max(x, 0) + log(1 + u) with u = exp(-|x|). log(1 + u) = 2·artanh(s) with
// s = u / (2 + u) is a short series in s² ≤ 1/9 without cancellation, so the relative error is as
// small for results of 1e-6 as of 50.
INLINE Vec softplus(Vec x) {
  Vec u = exp(smaller(x, -x));
  Vec s = u / (2.0f + u), s2 = s * s;
  Vec q = s2 * 1.401257403e-1f + 1.399950596e-1f;
  q = q * s2 + 2.001085311e-1f;
  q = q * s2 + 3.333320651e-1f;
  return larger(Vec{}, x) + 2.0f * (s + s * s2 * q);
}

// Picks lanes by number: 0 … W - 1 are those of a, W … 2W - 1 those of b.
template <int... lanes>
INLINE Vec pick(Vec a, Vec b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, lanes...);
#else
  return __builtin_shuffle(a, b, Ints{lanes...});
#endif
}

// Transposes W by W values: in step s, the lanes of row r whose bit s is set are swapped with those
// of row r + s whose bit s is clear.
template <int S, int... L>
struct Swap {
  static INLINE void rows(Vec& a, Vec& b) {
    Vec low = pick<(L & S ? W + L - S : L)...>(a, b);
    b = pick<(L & S ? W + L : L + S)...>(a, b);
    a = low;
  }
};
template <int S, int next, int... L>
struct Lanes : Lanes<S, next - 1, next - 1, L...> {};
template <int S, int... L>
struct Lanes<S, 0, L...> : Swap<S, L...> {};

template <int S>
INLINE void transpose_steps(Vec (&m)[W]) {
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
    if (!(r & S)) Lanes<S, W>::rows(m[r], m[r + S]);
  if constexpr (S > 1) transpose_steps<S / 2>(m);
}

// to[c][r] = from[r][c] for W by W values.
INLINE void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  Vec m[W];
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r) m[r] = load(from + r * from_stride);
  transpose_steps<W / 2>(m);
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r) store(to + r * to_stride, m[r]);
}

// to[c][r] = from[r][c] for a matrix. Rows and columns are rounded up to multiples of W, which both
// arrays must have room for.
INLINE void transpose_matrix(int64_t rows, int64_t columns, const float* from, int64_t stride,
                             float* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; r += W)
    for (int64_t c = 0; c < columns; c += W)
      transpose(from + r * stride + c, stride, to + c * to_stride + r, to_stride);
}

}  // namespace
