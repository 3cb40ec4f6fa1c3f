// The scan on CUDA: three kernels per call. The steps are those of
// network/bsmamba2_network/scan.py; tokens are processed in segments of Q. Matrix products run on
// tensor cores in the type of the tokens, with float32 sums. Everything else, including the state,
// is float32.
//
//     prepare    x|B|C ── convolution, SiLU ──► B, C            a block per segment and sequence
//     advance    x, z, dt, B, C ──► y, gated; the states        a block per head and sequence
//     normalise  y ──► y                                        a warp per token
//
// One block of `advance` walks along the segments of one head and sequence with the state in
// registers; the state is written to memory only if it is an output. The usual method computes all
// segments in parallel. It would write and read one state per segment, which at the paper's size is
// more than all other memory traffic together. BSMamba2 always has at least 62 sequences, so heads
// and sequences alone fill a GPU. B and C, which all heads share, are convolved once.
//
// The norm needs all heads, so it is a separate pass. Until that pass, each head's outputs are
// stored divided by their root mean square, so that they do not overflow float16.
//
// `reverse` traverses the same memory with a stride of −1.
#include "call.h"
#include <device.h>
#include "product.h"
#include "residual_norm.h"
#include "sequence.h"

namespace bsmamba2::cuda {

// Computes B and C of one segment, which all heads share. Also, once per call: whether a state of
// batch 1 is nonzero, and the output state of the convolution. Grid max(segments, 1) · batch.
template <class S>
DEVICE void prepare(const Call& call) {
  using T = typename S::Token;
  constexpr int N = S::N, groups = 2 * N / 8, R = S::Q * groups / S::prepare_threads;
  const int64_t segment = block() % S::prepare_blocks(call), b = block() / S::prepare_blocks(call);
  const int inner = call.heads * head_dim;
  const Sequence<T, N> s(call, b);
  if (segment < S::segments(call)) {
    const int column = thread() % groups * 8, row = thread() / groups * R;
    Eight<T> v[R];
    convolve<T, N, R>(call, s, int(segment) * S::Q + row, inner + column, v);
    T* to = S::B_and_C(call) + ((b * S::segments(call) + segment) * 2 + column / N) * S::Q * N;
#pragma unroll
    for (int r = 0; r < R; ++r)
      *reinterpret_cast<Eight<T>*>(to + (row + r) * N + column % N) = v[r];
  }
  if (segment == 0 && call.ssm_batch == 1) {
    constexpr int warps = S::prepare_threads / 32;
    for (int64_t h = b * warps + thread() / 32; h < call.heads; h += call.batch * warps) {
      int nonzero = 0;
      for (int i = lane(); i < S::P * N; i += 32)
        nonzero |= call.ssm_state[h * S::P * N + i] != 0;
      nonzero = any_lane(nonzero);
      if (lane() == 0) S::nonzero_heads(call)[h] = nonzero;
    }
  }
  if (segment == S::prepare_blocks(call) - 1 && call.conv_state_out) {
    for (int i = thread(); i < s.channels * (taps - 1); i += S::prepare_threads) {
      const int t = s.length - (taps - 1) + i % (taps - 1);
      // A sequence of fewer than three tokens keeps part of its input state.
      call.conv_state_out[b * s.channels * (taps - 1) + i] =
          t < 0 ? s.conv_state(call)[i + s.length] : widen(s.xbc(call, t)[i / (taps - 1)]);
    }
  }
}

// Computes Δ of a segment's tokens and the cumulative sums of their decay exponents, in one warp.
// The sums are computed in double and stored as two floats each, because the difference of two sums
// must stay accurate after a strong decay. Tokens past the end have Δ = 0, so they neither write to
// the state nor decay it.
template <class S, class Tokens>
DEVICE void discretise(const Call& call, const Tokens& sequence, int segment, int h,
                       typename S::Shared& s) {
  constexpr int Q = S::Q, each = Q / 32;
  const double A = -double(expf(call.A_log[h])) * 1.4426950408889634;
  float delta[each];
  double total[each], sum = 0;
#pragma unroll
  for (int i = 0; i < each; ++i) {
    const int t = segment * Q + lane() * each + i;
    delta[i] = 0;
    if (t < sequence.length)
      delta[i] = softplus(widen(sequence.dt(call, t)[h]) + call.dt_bias[h]);
    sum += delta[i] * A;
    total[i] = sum;
  }
  double before = sum;
  for (int by = 1; by < 32; by *= 2) {
    const double below = from_lane_below(before, by);
    if (lane() >= by) before += below;
  }
  const double segment_total = from_last_lane(before);
  before -= sum;
#pragma unroll
  for (int i = 0; i < each; ++i) {
    const int q = lane() * each + i;
    total[i] += before;
    s.total[q] = float(total[i]);
    s.total_low[q] = float(total[i] - float(total[i]));
    s.delta[q] = delta[i];
    s.to_end[q] = delta[i] * exp2_fast(float(segment_total - total[i]));
    s.from_start[q] = exp2_fast(float(total[i]));
  }
  if (lane() == 0) s.whole_decay = exp2_fast(float(segment_total));
}

// Scans one head of one sequence. Grid H · batch.
template <class S>
DEVICE void advance(const Call& call) {
  using T = typename S::Token;
  constexpr int N = S::N, P = S::P, Q = S::Q;
  // A warp computes the outputs of 16 tokens, in a part of the columns, and 16 rows of the state.
  constexpr int row_groups = Q / 16, column_groups = S::warps / row_groups;
  constexpr int out_tiles = P / 8 / column_groups;
  static_assert(S::warps == P / 16);
  auto& s = *static_cast<typename S::Shared*>(shared_memory());
  const int h = int(block() % call.heads);
  const int64_t b = block() / call.heads;
  const int segments = int(S::segments(call));
  const int warp = thread() / 32, g = lane() / 4, two = lane() % 4 * 2;
  const int r0 = warp % row_groups * 16, c0 = warp / row_groups * out_tiles * 8, p0 = warp * 16;
  const Sequence<T, N> sequence(call, b);
  // An initial state of zero needs no products.
  const bool starts_nonzero = call.ssm_batch != 1 || S::nonzero_heads(call)[h];
  float state[N / 8][4] = {};
  if (starts_nonzero) {
    const float* from =
        call.ssm_state + ((call.ssm_batch == 1 ? 0 : b) * call.heads + h) * int64_t(P * N);
#pragma unroll
    for (int i = 0; i < N / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        state[i][e] = from[(p0 + g + e / 2 * 8) * N + i * 8 + two + e % 2];
  }

  for (int segment = 0; segment < segments; ++segment) {
    const bool from_state = segment > 0 || starts_nonzero;
    barrier();  // every thread has read the previous segment's shared memory

    // Fill shared memory: B and C by asynchronous copies, the state from registers, z, and the
    // convolved x.
    constexpr int per_copy = 16 / sizeof(T), copies = N / per_copy;
    const T* source = S::B_and_C(call) + (b * segments + segment) * (2 * Q * N);
    for (int i = thread(); i < 2 * Q * copies; i += S::threads) {
      T(*to)[N + S::pad] = i < Q * copies ? s.B : s.C;
      copy_16_bytes(&to[i / copies % Q][i % copies * per_copy], source + i * per_copy);
    }
    if (from_state) {
#pragma unroll
      for (int i = 0; i < N / 8; ++i) {
        put_two(&s.state[p0 + g][i * 8 + two], state[i][0], state[i][1]);
        put_two(&s.state[p0 + g + 8][i * 8 + two], state[i][2], state[i][3]);
      }
    }
    {
      constexpr int R = Q * (P / 8) / S::threads;
      const int column = thread() % (P / 8) * 8, row = thread() / (P / 8) * R;
      const int t0 = segment * Q + row;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        if (t0 + r >= sequence.length) break;
        const T* z = sequence.token(t0 + r) + h * P + column;
        T* to = &s.z[row + r][column];
        if (sequence.aligned) {
#pragma unroll
          for (int i = 0; i < 8; i += per_copy) copy_16_bytes(to + i, z + i);
        } else {
          *reinterpret_cast<Eight<T>*>(to) = load_eight(z, false);
        }
      }
      Eight<T> x[R];
      convolve<T, N, R>(call, sequence, t0, h * P + column, x);
#pragma unroll
      for (int r = 0; r < R; ++r) *reinterpret_cast<Eight<T>*>(&s.x[row + r][column]) = x[r];
    }
    if (warp == 0) discretise<S>(call, sequence, segment, h, s);
    wait_for_copies();
    barrier();

    // Outputs: first the contribution of the state before the segment …
    float out[out_tiles][4] = {};
    if (from_state) {
#pragma unroll 1
      for (int k = 0; k < N; k += depth<T>) {
        const Left<T> c = left(s.C, r0, k);
#pragma unroll
        for (int i = 0; i < out_tiles; i += 2) {
          Right<T> states[2];
          right(states, s.state, k, c0 + i * 8);
          multiply(out[i], c, states[0]);
          multiply(out[i + 1], c, states[1]);
        }
      }
#pragma unroll
      for (int i = 0; i < out_tiles; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) out[i][e] *= s.from_start[r0 + g + e / 2 * 8];
    }

    // … then that of the segment's tokens: scores(i, j) = C_i·B_j · exp(a_{j+1} + … + a_i) · Δ_j
    // for j ≤ i, 32 columns at a time, skipping columns entirely above the diagonal.
#pragma unroll 1
    for (int j0 = 0; j0 < r0 + 16; j0 += 32) {
      float scores[4][4] = {};
#pragma unroll 1
      for (int k = 0; k < N; k += depth<T>) {
        const Left<T> c = left(s.C, r0, k);
#pragma unroll
        for (int tile = 0; tile < 4; tile += 2) {
          Right<T> bs[2];
          right(bs, s.B, k, j0 + tile * 8);
          multiply(scores[tile], c, bs[0]);
          multiply(scores[tile + 1], c, bs[1]);
        }
      }
#pragma unroll
      for (int tile = 0; tile < 4; ++tile)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int i = r0 + g + e / 2 * 8, j = j0 + tile * 8 + two + e % 2;
          const float between = (s.total[i] - s.total[j]) + (s.total_low[i] - s.total_low[j]);
          scores[tile][e] = j <= i ? scores[tile][e] * exp2_fast(between) * s.delta[j] : 0;
        }
#pragma unroll
      for (int k = 0; k < 32; k += depth<T>) {
        const Left<T> weights = left_of_sums<T>(scores + k / 8);
#pragma unroll
        for (int i = 0; i < out_tiles; i += 2) {
          Right<T> x[2];
          right_after_sums(x, s.x, j0 + k, c0 + i * 8);
          multiply(out[i], weights, x[0]);
          multiply(out[i + 1], weights, x[1]);
        }
      }
    }

    // The state after the segment.
    if (segment + 1 < segments || call.ssm_state_out) {
#pragma unroll
      for (int i = 0; i < N / 8; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) state[i][e] *= s.whole_decay;
#pragma unroll 1
      for (int k = 0; k < Q; k += depth<T>) {
        const Left<T> writes = left_transposed(s.x, s.to_end, p0, k);
#pragma unroll
        for (int i = 0; i < N / 8; i += 2) {
          Right<T> bs[2];
          right_transposed(bs, s.B, k, i * 8);
          multiply(state[i], writes, bs[0]);
          multiply(state[i + 1], writes, bs[1]);
        }
      }
    }

    // Skip and gate; then divide each token by the head's root mean square.
    const float skip = call.D[h];
    float squares[2] = {};
#pragma unroll
    for (int i = 0; i < out_tiles; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int q = r0 + g + e / 2 * 8, p = c0 + i * 8 + two + e % 2;
        out[i][e] = (out[i][e] + skip * widen(s.x[q][p])) * silu(widen(s.z[q][p]));
        squares[e / 2] += out[i][e] * out[i][e];
      }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      squares[half] += from_lane_xor(squares[half], 1);
      squares[half] += from_lane_xor(squares[half], 2);
      if (two == 0) s.squares[warp][g + half * 8] = squares[half];
    }
    barrier();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = g + half * 8;
      float sum = 0;
#pragma unroll
      for (int group = 0; group < column_groups; ++group)
        sum += s.squares[warp % row_groups + group * row_groups][row];
      const float mean = larger(sum / P, 1e-30f), inverse = reciprocal_root(mean);
      const int t = segment * Q + r0 + row;
      if (two == 0 && c0 == 0 && t < sequence.length)
        S::mean_squares(call)[sequence.index(call, t) * call.heads + h] = mean;
#pragma unroll
      for (int i = 0; i < out_tiles; ++i)
        put_two(&s.z[r0 + row][c0 + i * 8 + two], out[i][half * 2] * inverse,
                out[i][half * 2 + 1] * inverse);
    }
    barrier();
    for (int i = thread(); i < Q * (P / 8); i += S::threads) {
      const int t = segment * Q + i / (P / 8);
      if (t >= sequence.length) break;
      T* to = static_cast<T*>(call.y) + (sequence.index(call, t) * call.heads + h) * P;
      *reinterpret_cast<Eight<T>*>(to + i % (P / 8) * 8) =
          *reinterpret_cast<const Eight<T>*>(&s.z[i / (P / 8)][i % (P / 8) * 8]);
    }
  }

  if (call.ssm_state_out) {
    float* to = call.ssm_state_out + (b * call.heads + h) * (P * N);
#pragma unroll
    for (int i = 0; i < N / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        to[(p0 + g + e / 2 * 8) * N + i * 8 + two + e % 2] = state[i][e];
  }
}

// Normalises over all heads, in place. Grid tokens / warps.
template <class S>
DEVICE void normalise(const Call& call) {
  using T = typename S::Token;
  constexpr int warps = S::normalise_threads / 32;
  const int64_t token = block() * warps + thread() / 32;
  if (token >= call.batch * call.length) return;
  const float* mean_squares = S::mean_squares(call) + token * call.heads;
  const int64_t inner = int64_t(call.heads) * S::P;
  T* y = static_cast<T*>(call.y) + token * inner;
  float sum = 0;
  for (int h = lane(); h < call.heads; h += 32) sum += mean_squares[h];
#pragma unroll
  for (int mask = 16; mask; mask /= 2) sum += from_lane_xor(sum, mask);
  const float inverse = reciprocal_root(sum / call.heads + call.epsilon);
#pragma unroll 4
  for (int64_t i = lane() * 8; i < inner; i += 256) {
    const float scale = sqrtf(mean_squares[i / S::P]) * inverse;
    const Eight<T> input = *reinterpret_cast<const Eight<T>*>(y + i);
    Eight<T> v;
#pragma unroll
    for (int c = 0; c < 8; c += 2)
      v.put_two(c, input[c] * scale * call.norm_weight[i + c],
                input[c + 1] * scale * call.norm_weight[i + c + 1]);
    *reinterpret_cast<Eight<T>*>(y + i) = v;
  }
}

}  // namespace bsmamba2::cuda

using namespace bsmamba2::cuda;

#define SCAN(variant)                                                                            \
  KERNEL(prepare_##variant, Call, (variant::prepare_threads), 2) { prepare<variant>(call); }     \
  KERNEL(advance_##variant, Call, (variant::threads), BSMAMBA2_RESIDENT) {                       \
    advance<variant>(call);                                                                      \
  }                                                                                              \
  KERNEL(normalise_##variant, Call, (variant::normalise_threads), 1) { normalise<variant>(call); }
#define RESIDUAL_NORM(kind, T)                                                                   \
  KERNEL(residual_norm_##kind##_d256, Residual, (residual_threads), 1) {                         \
    residual_norm<T, 256>(call);                                                                 \
  }                                                                                              \
  KERNEL(residual_norm_##kind##_d1024, Residual, (residual_threads), 1) {                        \
    residual_norm<T, residual_most_features>(call);                                              \
  }

SCAN(fp32_n64)
SCAN(fp32_n128)
SCAN(fp16_n64)
SCAN(fp16_n128)
SCAN(fp16_n128_short)
SCAN(bf16_n64)
SCAN(bf16_n128)
SCAN(bf16_n128_short)
RESIDUAL_NORM(fp32, float)
RESIDUAL_NORM(fp16, Half)
RESIDUAL_NORM(bf16, Bfloat)
