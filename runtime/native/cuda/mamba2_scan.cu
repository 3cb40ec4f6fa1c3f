// The scan on CUDA: three kernels a call. The steps are those of
// network/bsmamba2_network/scan.py; the tokens are taken in chunks of Q. Products of matrices run
// on tensor cores in the type of the tokens, with float32 sums; all else, the state included, is
// float32.
//
//     prepare    x|B|C ── convolution, SiLU ──► B, C            a block a chunk and sequence
//     advance    x, z, dt, B, C ──► y, gated; the states        a block a head and sequence
//     normalise  y ──► y                                        a warp a token
//
// A head of a sequence walks along its chunks with the state in registers: it goes to memory only
// where it is wanted. Computing all chunks at once, as is usual, would write and read one state a
// chunk, which at the paper's size is more than all other traffic together; and as BSMamba2 always
// has 62 sequences or more, heads and sequences alone fill a GPU. What the heads share, B and C, is
// convolved once. The norm needs all heads, so it is a pass of its own: until then a head's outputs
// stand divided by their own root mean square, so that float16 does not overflow on the way.
//
// `reverse` walks over the same memory with a stride of −1.
#include "call.h"
#include <device.h>
#include "product.h"
#include "sequence.h"

namespace bsmamba2::cuda {

// B and C of one chunk, which all heads share; and once a call what is small: whether a state of
// batch 1 is zero, and the state of the convolution. Grid max(chunks, 1) · batch.
template <class T, int N>
DEVICE void prepare(const Call& call) {
  using S = Sizes<T, N>;
  constexpr int groups = 2 * N / 8, R = S::Q * groups / S::prepare_threads;
  const int64_t chunk = block() % S::prepared(call), b = block() / S::prepared(call);
  const int inner = call.heads * head_dim;
  const Sequence<T, N> s(call, b);
  if (chunk < S::chunks(call)) {
    const int column = thread() % groups * 8, row = thread() / groups * R;
    Eight<T> v[R];
    convolve<T, N, R>(call, s, int(chunk) * S::Q + row, inner + column, v);
    T* to = S::shared(call) + ((b * S::chunks(call) + chunk) * 2 + column / N) * S::Q * N;
#pragma unroll
    for (int r = 0; r < R; ++r)
      *reinterpret_cast<Eight<T>*>(to + (row + r) * N + column % N) = v[r];
  }
  if (chunk == 0 && call.ssm_batch == 1) {
    constexpr int warps = S::prepare_threads / 32;
    for (int64_t h = b * warps + thread() / 32; h < call.heads; h += call.batch * warps) {
      int found = 0;
      for (int i = lane(); i < S::P * N; i += 32)
        found |= call.ssm_state[h * S::P * N + i] != 0;
      found = any_lane(found);
      if (lane() == 0) S::busy(call)[h] = found;
    }
  }
  if (chunk == S::prepared(call) - 1 && call.conv_state_out) {
    for (int i = thread(); i < s.channels * (taps - 1); i += S::prepare_threads) {
      const int t = s.length - (taps - 1) + i % (taps - 1);
      // A sequence of fewer than three tokens keeps some of what was there before.
      call.conv_state_out[b * s.channels * (taps - 1) + i] =
          t < 0 ? s.conv_state(call)[i + s.length] : widen(s.xbc(call, t)[i / (taps - 1)]);
    }
  }
}

// Δ of a chunk's tokens and what their decays add up to, by one warp. The sums are made in double
// and kept as two floats: a difference of two of them must not lose what comes after a strong
// decay. Tokens past the end have Δ = 0: they write nothing and forget nothing.
template <class T, int N>
DEVICE void discretise(const Call& call, const Sequence<T, N>& sequence, int chunk, int h,
                       typename Sizes<T, N>::Shared& s) {
  constexpr int Q = Sizes<T, N>::Q, each = Q / 32;
  const double A = -double(expf(call.A_log[h])) * 1.4426950408889634;
  float delta[each];
  double total[each], sum = 0;
#pragma unroll
  for (int i = 0; i < each; ++i) {
    const int t = chunk * Q + lane() * each + i;
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
  const double whole = from_last_lane(before);
  before -= sum;
#pragma unroll
  for (int i = 0; i < each; ++i) {
    const int q = lane() * each + i;
    total[i] += before;
    s.total[q] = float(total[i]);
    s.total_rest[q] = float(total[i] - float(total[i]));
    s.delta[q] = delta[i];
    s.to_end[q] = delta[i] * exp2_fast(float(whole - total[i]));
    s.gain[q] = exp2_fast(float(total[i]));
  }
  if (lane() == 0) s.whole = exp2_fast(float(whole));
}

// One head along one sequence. Grid H · batch.
template <class T, int N>
DEVICE void advance(const Call& call) {
  using S = Sizes<T, N>;
  constexpr int P = S::P, Q = S::Q;
  // A warp computes 16 tokens' outputs, in some of the columns, and 16 rows of the state.
  constexpr int row_groups = Q / 16, column_groups = S::warps / row_groups;
  constexpr int out_tiles = P / 8 / column_groups;
  static_assert(S::warps == P / 16);
  auto& s = *static_cast<typename S::Shared*>(shared_memory());
  const int h = int(block() % call.heads);
  const int64_t b = block() / call.heads;
  const int chunks = int(S::chunks(call));
  const int warp = thread() / 32, g = lane() / 4, two = lane() % 4 * 2;
  const int r0 = warp % row_groups * 16, c0 = warp / row_groups * out_tiles * 8, p0 = warp * 16;
  const Sequence<T, N> sequence(call, b);
  // A start at zero costs no products.
  const bool started = call.ssm_batch != 1 || S::busy(call)[h];
  float state[N / 8][4] = {};
  if (started) {
    const float* from =
        call.ssm_state + ((call.ssm_batch == 1 ? 0 : b) * call.heads + h) * int64_t(P * N);
#pragma unroll
    for (int i = 0; i < N / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        state[i][e] = from[(p0 + g + e / 2 * 8) * N + i * 8 + two + e % 2];
  }

  for (int chunk = 0; chunk < chunks; ++chunk) {
    const bool from_state = chunk > 0 || started;
    barrier();  // all have read the last chunk's

    // Fill shared memory: B and C by themselves, the state from registers, z, and x convolved.
    constexpr int piece = 16 / sizeof(T), pieces = N / piece;
    const T* source = S::shared(call) + (b * chunks + chunk) * (2 * Q * N);
    for (int i = thread(); i < 2 * Q * pieces; i += S::threads) {
      T(*to)[N + S::pad] = i < Q * pieces ? s.B : s.C;
      copy_16_bytes(&to[i / pieces % Q][i % pieces * piece], source + i * piece);
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
      const int t0 = chunk * Q + row;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        if (t0 + r >= sequence.length) break;
        const T* z = sequence.token(t0 + r) + h * P + column;
        T* to = &s.z[row + r][column];
        if (sequence.aligned) {
#pragma unroll
          for (int i = 0; i < 8; i += piece) copy_16_bytes(to + i, z + i);
        } else {
          *reinterpret_cast<Eight<T>*>(to) = load_eight(z, false);
        }
      }
      Eight<T> x[R];
      convolve<T, N, R>(call, sequence, t0, h * P + column, x);
#pragma unroll
      for (int r = 0; r < R; ++r) *reinterpret_cast<Eight<T>*>(&s.x[row + r][column]) = x[r];
    }
    if (warp == 0) discretise<T, N>(call, sequence, chunk, h, s);
    wait_for_copies();
    barrier();

    // Outputs: what the state that enters the chunk gives to its tokens …
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
        for (int e = 0; e < 4; ++e) out[i][e] *= s.gain[r0 + g + e / 2 * 8];
    }

    // … and what they give each other: scores(i, j) = C_i·B_j · exp(a_{j+1} + … + a_i) · Δ_j for
    // j ≤ i, 32 columns at a time, none beyond the diagonal.
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
          const float between = (s.total[i] - s.total[j]) + (s.total_rest[i] - s.total_rest[j]);
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

    // The state after the chunk.
    if (chunk + 1 < chunks || call.ssm_state_out) {
#pragma unroll
      for (int i = 0; i < N / 8; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) state[i][e] *= s.whole;
#pragma unroll 1
      for (int k = 0; k < Q; k += depth<T>) {
        const Left<T> written = left_transposed(s.x, s.to_end, p0, k);
#pragma unroll
        for (int i = 0; i < N / 8; i += 2) {
          Right<T> bs[2];
          right_transposed(bs, s.B, k, i * 8);
          multiply(state[i], written, bs[0]);
          multiply(state[i + 1], written, bs[1]);
        }
      }
    }

    // Skip and gate; each token divided by the head's root mean square.
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
      const int t = chunk * Q + r0 + row;
      if (two == 0 && c0 == 0 && t < sequence.length)
        S::power(call)[sequence.place(call, t) * call.heads + h] = mean;
#pragma unroll
      for (int i = 0; i < out_tiles; ++i)
        put_two(&s.z[r0 + row][c0 + i * 8 + two], out[i][half * 2] * inverse,
                out[i][half * 2 + 1] * inverse);
    }
    barrier();
    for (int i = thread(); i < Q * (P / 8); i += S::threads) {
      const int t = chunk * Q + i / (P / 8);
      if (t >= sequence.length) break;
      T* to = static_cast<T*>(call.y) + (sequence.place(call, t) * call.heads + h) * P;
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

// The norm over all heads, in place. Grid tokens / warps.
template <class T, int N>
DEVICE void normalise(const Call& call) {
  using S = Sizes<T, N>;
  constexpr int warps = S::normalise_threads / 32;
  const int64_t token = block() * warps + thread() / 32;
  if (token >= call.batch * call.length) return;
  const float* power = S::power(call) + token * call.heads;
  const int64_t inner = int64_t(call.heads) * S::P;
  T* y = static_cast<T*>(call.y) + token * inner;
  float sum = 0;
  for (int h = lane(); h < call.heads; h += 32) sum += power[h];
#pragma unroll
  for (int mask = 16; mask; mask /= 2) sum += from_lane_xor(sum, mask);
  const float inverse = reciprocal_root(sum / call.heads + call.epsilon);
#pragma unroll 4
  for (int64_t i = lane() * 8; i < inner; i += 256) {
    const float scale = sqrtf(power[i / S::P]) * inverse;
    const Eight<T> given = *reinterpret_cast<const Eight<T>*>(y + i);
    Eight<T> v;
#pragma unroll
    for (int c = 0; c < 8; c += 2)
      v.put_two(c, given[c] * scale * call.norm_weight[i + c],
                given[c + 1] * scale * call.norm_weight[i + c + 1]);
    *reinterpret_cast<Eight<T>*>(y + i) = v;
  }
}

}  // namespace bsmamba2::cuda

using namespace bsmamba2::cuda;

#define KERNELS(kind, T, N)                                                               \
  KERNEL(prepare_##kind##_n##N, (Sizes<T, N>::prepare_threads), 1) { prepare<T, N>(call); } \
  KERNEL(advance_##kind##_n##N, (Sizes<T, N>::threads), BSMAMBA2_RESIDENT) { advance<T, N>(call); }         \
  KERNEL(normalise_##kind##_n##N, (Sizes<T, N>::normalise_threads), 1) { normalise<T, N>(call); }

KERNELS(fp32, float, 64)
KERNELS(fp32, float, 128)
KERNELS(fp16, Half, 64)
KERNELS(fp16, Half, 128)
KERNELS(bf16, Bfloat, 64)
KERNELS(bf16, Bfloat, 128)
