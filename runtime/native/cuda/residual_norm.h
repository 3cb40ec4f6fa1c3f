// What lies between two blocks of the compact network: residual, exchange of the axes and norm.
// Specification: network/bsmamba2_network/residual_norm.py.
#pragma once

#include "sequence.h"

namespace bsmamba2::cuda {

// The sum over all lanes of a warp.
DEVICE float sum_of_lanes(float v) {
#pragma unroll
  for (int mask = 16; mask; mask /= 2) v += from_lane_xor(v, mask);
  return v;
}

// A warp per row, which it keeps in registers. Grid rows / warps.
template <class T, int most_features>
DEVICE void residual_norm(const Residual& call) {
  constexpr int columns_of_warp = 32 * 8, parts = most_features / columns_of_warp;
  const int64_t row = block() * (residual_threads / 32) + thread() / 32;
  if (row >= call.batch * call.m * call.n) return;
  const int lane = thread() % 32;
  const int64_t at = row * call.features;
  auto tokens = [at](const void* tensor) { return static_cast<const T*>(tensor) + at; };

  float v[parts][8] = {};
  float squares = 0;
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    const int column = part * columns_of_warp + lane * 8;
    if (column >= call.features) break;
    const Eight<float> x = load_eight(call.x + at + column, true);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[part][i] = x[i], squares += x[i] * x[i];
  }
  const float size = sqrtf(sum_of_lanes(squares) / call.features + call.epsilon);

  squares = 0;
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    const int column = part * columns_of_warp + lane * 8;
    if (column >= call.features) break;
    const Eight<T> forwards = load_eight(tokens(call.forwards) + column, true);
    const Eight<T> backwards = load_eight(tokens(call.backwards) + column, true);
    const Eight<T> scaled = load_eight(tokens(call.scaled) + column, true);
    const Eight<float> bias = load_eight(call.bias + column, true);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      v[part][i] += forwards[i] + backwards[i] + size * scaled[i] + bias[i];
      squares += v[part][i] * v[part][i];
    }
  }
  const float inverse =
      reciprocal_root(sum_of_lanes(squares) / call.features + call.next_epsilon);

  const int64_t of_batch = call.m * call.n, b = row / of_batch, i = row % of_batch;
  const int64_t to = (b * of_batch + i % call.n * call.m + i / call.n) * call.features;
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    const int column = part * columns_of_warp + lane * 8;
    if (column >= call.features) break;
    Eight<float> joined;
    Eight<T> unit;
#pragma unroll
    for (int e = 0; e < 8; e += 2) {
      joined.put_two(e, v[part][e], v[part][e + 1]);
      unit.put_two(e, v[part][e] * inverse, v[part][e + 1] * inverse);
    }
    *reinterpret_cast<Eight<float>*>(call.joined + to + column) = joined;
    *reinterpret_cast<Eight<T>*>(static_cast<T*>(call.unit) + to + column) = unit;
  }
}

}  // namespace bsmamba2::cuda
