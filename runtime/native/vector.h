// A vector of W floats and the few functions the scan needs, for the instruction set that this
// translation unit is compiled for. Everything is in an anonymous namespace and nothing of the
// standard library is called: an inline function shared with another instruction set's object
// would be merged by the linker, and a machine without AVX-512 would run the AVX-512 copy.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

// V vectors and R rows make a tile of sums that stays in registers: R·V + V + 1 of them.
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

// Whole vectors at aligned addresses that nobody reads soon: memory need not be read to be written,
// a tenth of the time of a scan larger than the caches. Other threads see them after a fence.
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

// The first `count` of W values; the others read as zero and are not written.
INLINE Vec load(const float* p, int64_t count) {
  Vec v{};
  memcpy(&v, p, size_t(count) * 4);
  return v;
}
INLINE void store(float* p, Vec v, int64_t count) { memcpy(p, &v, size_t(count) * 4); }

// Calls body(i, whole) for each W of `count` values and body(i, rest) for those that are left.
struct Whole {};
INLINE Vec load(const float* p, Whole) { return load(p); }
INLINE void store(float* p, Vec v, Whole) { store(p, v); }

template <class Body>
INLINE void each_vector(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + W <= count; i += W) body(i, Whole{});
  if (i < count) body(i, count - i);
}

INLINE float sum(Vec v) {
  float total = 0;
  for (int l = 0; l < W; ++l) total += v[l];
  return total;
}

// min and max that hand on a NaN in their second argument, and 1 / x to float32's accuracy for
// normal results. A hardware estimate and one Newton step are three times faster than a division.
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

// exp(sign · x) = 2ⁿ·exp(r) with n the integer nearest to sign · x / ln 2, found by adding 1.5·2²³,
// whose last bit counts ones, and |r| ≤ ln(2) / 2, where exp is a polynomial. x is kept within ±87,
// so that 2ⁿ is a normal number: a decay of e⁻⁸⁷ is as good as zero.
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

// To 2e-9 and rounding: errors of decays add up along a chunk.
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

// x / (1 + e⁻ˣ), with the exponential to 9e-8.
INLINE Vec silu(Vec x) {
  const Power power(x, -1);
  const Vec r = power.r;
  Vec q = r * 8.290229414e-3f + 4.189839102e-2f;
  q = q * r + 1.666764007e-1f;
  q = q * r + 4.999914614e-1f;
  q = q * r + 9.999997054e-1f;
  return x * reciprocal(1.0f + power.times(q * r + 1.0f));
}

// log(1 + eˣ) = max(x, 0) + log(1 + u) with u = exp(-|x|), and log(1 + u) = 2·artanh(s) with
// s = u / (2 + u) is a short series in s² ≤ 1/9 without cancellation: 1e-6 is as accurate as 50.
INLINE Vec softplus(Vec x) {
  Vec u = exp(smaller(x, -x));
  Vec s = u / (2.0f + u), s2 = s * s;
  Vec q = s2 * 1.401257403e-1f + 1.399950596e-1f;
  q = q * s2 + 2.001085311e-1f;
  q = q * s2 + 3.333320651e-1f;
  return larger(Vec{}, x) + 2.0f * (s + s * s2 * q);
}

// The lanes of a, then those of b, that `lanes` counts through from 0 to 2W - 1.
template <int... lanes>
INLINE Vec pick(Vec a, Vec b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, lanes...);
#else
  return __builtin_shuffle(a, b, Ints{lanes...});
#endif
}

// Transposes W by W values: in step s, the lanes of row r whose bit s is set change places with
// those of row r + s whose bit s is not.
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

// to[c][r] = from[r][c] for whole tiles; both must have room for them.
INLINE void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  Vec m[W];
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r) m[r] = load(from + r * from_stride);
  transpose_steps<W / 2>(m);
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r) store(to + r * to_stride, m[r]);
}

}  // namespace
