// The kernels' input: eight numbers per load, a sequence in scan order, and the convolution of its
// tokens.
#pragma once

#include "call.h"
#include <device.h>

namespace bsmamba2::cuda {

constexpr float log2_e = 1.4426950408889634f;

DEVICE float silu(float v) { return divide_fast(v, 1 + exp2_fast(-log2_e * v)); }
DEVICE float softplus(float v) { return v > 20 ? v : log1pf(expf(v)); }
DEVICE float larger(float a, float b) { return a > b ? a : b; }

// Eight adjacent numbers, in their memory format.
template <class T>
struct alignas(16) Eight {
  uint32_t words[2 * sizeof(T)];

  DEVICE float operator[](int i) const {
    if constexpr (sizeof(T) == 2) return widen(T{uint16_t(words[i / 2] >> i % 2 * 16)});
    else return number(words[i]);
  }
  DEVICE void put_two(int i, float low, float high) {
    if constexpr (sizeof(T) == 2) words[i / 2] = narrow_two(T{}, low, high);
    else words[i] = bits(low), words[i + 1] = bits(high);
  }
};

template <class T>
DEVICE Eight<T> load_eight(const T* from, bool aligned) {
  if (aligned) return *reinterpret_cast<const Eight<T>*>(from);
  Eight<T> v;
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      v.words[i] = from[2 * i].bits | uint32_t(from[2 * i + 1].bits) << 16;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) v.words[i] = bits(from[i]);
  }
  return v;
}

template <class T>
DEVICE void put_two(T* to, float low, float high) {
  if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<uint32_t*>(to) = narrow_two(T{}, low, high);
  } else {
    to[0] = low, to[1] = high;
  }
}

// One sequence, in scan order.
template <class T, int N>
struct Sequence {
  int length, channels;
  int stride;   // from one token to the next, in numbers
  bool aligned; // whether every eighth column is aligned to 16 bytes
  const T* z;   // the first token's columns
  int b;

  DEVICE Sequence(const Call& call, int64_t b) : length(int(call.length)), b(int(b)) {
    const int inner = call.heads * head_dim;
    channels = inner + 2 * N;
    const int row = inner + channels + call.dt_columns;
    stride = call.reverse ? -row : row;
    z = static_cast<const T*>(call.zxbcdt) + index(call, 0) * row;
    aligned = row * sizeof(T) % 16 == 0 && reinterpret_cast<int64_t>(call.zxbcdt) % 16 == 0;
  }
  // The index of token t among the tokens of all sequences.
  DEVICE int64_t index(const Call& call, int t) const {
    return int64_t(b) * call.length + (call.reverse ? call.length - 1 - t : t);
  }
  DEVICE const T* token(int t) const { return z + int64_t(t) * stride; }
  DEVICE const T* xbc(const Call& call, int t) const { return token(t) + call.heads * head_dim; }
  DEVICE const T* dt(const Call& call, int t) const { return xbc(call, t) + channels; }
  // (channels, 3), oldest first.
  DEVICE const float* conv_state(const Call& call) const {
    return call.conv_state + (call.conv_batch == 1 ? 0 : int64_t(b)) * channels * (taps - 1);
  }
};

// Adds what the input state contributes to the sums of the first tokens, in two columns.
template <class T, int N, int R>
DEVICE void add_state(const Call& call, const Sequence<T, N>& s, int t0, int column,
                      float (&sum)[R][2]) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int k = 0; k < taps - 1; ++k)
      if (t0 + r + k < taps - 1)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          sum[r][e] += call.conv_weight[(column + e) * taps + k] *
                       s.conv_state(call)[(column + e) * (taps - 1) + t0 + r + k];
}

// Computes the convolution and SiLU of R tokens, starting at t0, in eight columns of x|B|C. The
// inputs before the first token are the state; outputs past the last token are 0.
template <class T, int N, int R>
DEVICE void convolve(const Call& call, const Sequence<T, N>& s, int t0, int column,
                     Eight<T> (&out)[R]) {
  Eight<T> input[taps - 1 + R];
#pragma unroll
  for (int i = 0; i < taps - 1 + R; ++i) {
    const int t = t0 + i - (taps - 1);
    input[i] = {};
    if (t >= 0 && t < s.length) input[i] = load_eight(s.xbc(call, t) + column, s.aligned);
  }
  const float* weight = call.conv_weight + column * taps;
#pragma unroll
  for (int c = 0; c < 8; c += 2) {
    float sum[R][2];
#pragma unroll
    for (int e = 0; e < 2; ++e)
#pragma unroll
      for (int r = 0; r < R; ++r) sum[r][e] = call.conv_bias[column + c + e];
    // The state is float32, so it is not in `input`.
    if (t0 < taps - 1) add_state(call, s, t0, column + c, sum);
#pragma unroll
    for (int e = 0; e < 2; ++e)
#pragma unroll
      for (int k = 0; k < taps; ++k) {
        const float w = weight[(c + e) * taps + k];
#pragma unroll
        for (int r = 0; r < R; ++r) sum[r][e] += w * input[r + k][c + e];
      }
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const bool inside = t0 + r < s.length;
      out[r].put_two(c, inside ? silu(sum[r][0]) : 0, inside ? silu(sum[r][1]) : 0);
    }
  }
}

}  // namespace bsmamba2::cuda
