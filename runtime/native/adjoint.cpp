// The gradients of one sequence's scan, compiled once for each instruction set (see vector.h).
//
// With the notation of segment.cpp, but x already multiplied by Δ, let y be a head's output before
// the skip and d• the gradient of the loss with respect to •. The sum that segment.cpp derives,
//
//     y_i = Σ_{j≤i} L_ij (C_i·B_j) x_j,    L_ij = exp(a_{j+1} + … + a_i)
//
// is linear in x, in B and in C. So with M_ij = L_ij (C_i·B_j) and U_ij = L_ij (dy_i·x_j)
//
//     dx = Mᵀ dy        dC = U B        dB = Uᵀ C
//
// Split into segments, with h the state before a segment, dh' the gradient of the state after it,
// s_i = exp(a_0 + … + a_i) and e_j = exp(a_{j+1} + … + a_last), this becomes
//
//     dC_i += s_i h dy_i      dx_j += e_j dh' B_j      dB_j += e_j dh'ᵀ x_j
//     dh = exp(a_0 + … + a_last) dh' + Σ_i s_i dy_i ⊗ C_i
//
// The decay exp(a_t) is a factor of every term from a token j < t to a token i ≥ t: the terms
// within the segment, S_ij = U_ij (C_i·B_j), those from h, those to dh', and those from h to dh'.
//
//     da_t = Σ_{i≥t>j} S_ij + Σ_{i≥t} s_i dy_i·h C_i + Σ_{j<t} e_j x_j·dh' B_j + s_last dh'·h
//
// The first sum is Σ_{i≥t} (row i of S − column i of S). It cancels, so it is computed in double.
//
// M, U and C·Bᵀ are zero or unused above the diagonal, so their products leave out half of the
// terms. Multiply-adds per token, in units of 64·64 (P = N = Q = 64): 7.6 per head with states on
// both sides, 1.6 without, and 1.6 once for all heads.
#include "adjoint_work.h"
#include "tile.h"

namespace bsmamba2 {
namespace {

// One sequence: repeats the forward pass, keeping its intermediate values, then runs the backward
// pass.
struct Pass {
  const Shape& s;
  const Weights& w;
  const Sequence& q;
  const WeightSums& sums;
  Work m;
  const int64_t channels = s.channels(), inner = s.inner(), past = s.taps - 1;
  const int64_t P = s.head_dim, N = s.state, state = s.heads * N * P;

  const float* input(int64_t t) const {
    return t < 0 ? m.past + (past + t) * channels : q.rows + t * q.stride + inner;
  }

  void convolve() {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < past; ++k) m.past[k * channels + c] = q.conv_state[c * past + k];
    for (int64_t t = 0; t < q.length; ++t) {
      const float* rows[max_taps] = {};
      for (int64_t k = 0; k <= past; ++k) rows[k] = input(t - past + k);
      float *value = m.xbc + t * channels, *slope = m.slope + t * channels;
      for (int64_t c = 0; c < channels; c += W) {
        Vec u = load(w.conv_bias + c);
        for (int64_t k = 0; k <= past; ++k) u += load(w.taps + k * channels + c) * load(rows[k] + c);
        const Gate gate(u);
        store(value + c, gate.value);
        store(slope + c, gate.slope);
      }
    }
    // Rows that pad the last segment are part of transposed tiles, so they must be zero.
    for (int64_t i = q.length * channels; i < m.segments * Q * channels; ++i) m.xbc[i] = 0;
    for (int64_t i = q.length * inner; i < m.segments * Q * inner; ++i) m.dy[i] = 0;
  }

  // SiLU and its derivative.
  struct Gate {
    Vec value, slope;
    INLINE explicit Gate(Vec x) {
      const Vec g = sigmoid(x);
      value = x * g, slope = g + value * (1.0f - g);
    }
  };

  void discretise() {
    for (int64_t h = 0; h < s.heads; ++h) {
      float *delta = m.delta + h * m.segments * Q, *a = m.a + h * m.segments * Q;
      float* slope = m.ddt + h * m.segments * Q;
      for (int64_t t = 0; t < m.segments * Q; ++t)
        delta[t] = t < q.length ? q.rows[t * q.stride + inner + channels + h] + w.dt_bias[h] : 0;
      for (int64_t t = 0; t < m.segments * Q; t += W) {
        const Vec dt = load(delta + t), step = softplus(dt);
        store(slope + t, sigmoid(dt));
        store(delta + t, step);
        store(a + t, step * w.A[h]);
      }
    }
  }

  // Whether the state before a segment can be nonzero, and whether the state after it is needed.
  bool has_past(int64_t segment) const { return segment > 0 || q.ssm_state; }
  bool has_future(int64_t segment) const { return segment + 1 < m.segments || q.dssm_state_out; }

  // One head of one segment.
  struct Part {
    int64_t h, first;
    int rows;
    float *B, *C, *x;  // in xbc
    float* CB;
    float over;        // exp(a_0 + … + a_last)
  };

  Part part(int64_t segment, int64_t h) const {
    const int64_t first = segment * Q;
    float* row = m.xbc + first * channels;
    const int rows = int(lesser(Q, q.length - first));
    return {h, first, rows, row + inner, row + inner + N, row + h * P, m.CB + first * Q, 0};
  }

  void products_of_C_and_B(const Part& c) {
    transpose_matrix(c.rows, N, c.B, channels, m.transposed, Q);
    product_below_diagonal(c.rows, N, c.C, channels, m.transposed, Q,
                           [&](int64_t i, int64_t j, Vec v) { store(c.CB + i * Q + j, v); });
  }

  // Computes x times Δ, the decays from the start and to the end, and M. Also multiplies `also` by
  // L, unless it is null.
  void prepare(Part& c, float* also) {
    const float *a = m.a + c.h * m.segments * Q + c.first;
    const float* delta = m.delta + c.h * m.segments * Q + c.first;
    float total[Q], remaining[Q], sum = 0;
    for (int i = 0; i < c.rows; ++i) total[i] = sum += a[i];
    for (int i = c.rows; i < Q; ++i) total[i] = sum;
    for (int i = 0; i < Q; ++i) remaining[i] = sum - total[i];
    for (int i = 0; i < Q; i += W) {
      store(m.from_start + i, exp(load(total + i)));
      store(m.to_end + i, exp(load(remaining + i)));
    }
    c.over = m.from_start[c.rows - 1];
    for (int i = 0; i < c.rows; ++i)
      for (int64_t p = 0; p < P; p += W)
        store(m.x + i * P + p, load(c.x + i * channels + p) * delta[i]);
    Ints lane;
    for (int l = 0; l < W; ++l) lane[l] = l;
    for (int i = 0; i < c.rows; ++i) {
      int j = 0;
      for (; j <= i; j += W) {
        const Vec L = lane + j <= i ? exp(total[i] - load(total + j)) : Vec{};
        store(m.M + i * Q + j, lane + j <= i ? load(c.CB + i * Q + j) * L : Vec{});
        if (also) store(also + i * Q + j, lane + j <= i ? load(also + i * Q + j) * L : Vec{});
      }
      for (; j < Q; j += W) {
        store(m.M + i * Q + j, Vec{});
        if (also) store(also + i * Q + j, Vec{});
      }
    }
  }

  // Multiplies each row by its weight.
  INLINE void weigh(const float* weight, const float* rows, int64_t stride, int count) {
    for (int i = 0; i < count; ++i)
      for (int64_t p = 0; p < P; p += W)
        store(m.weighted + i * P + p, load(rows + i * stride + p) * weight[i]);
  }

  void forward(int64_t segment) {
    products_of_C_and_B(part(segment, 0));
    for (int64_t h = 0; h < s.heads; ++h) {
      Part c = part(segment, h);
      prepare(c, nullptr);
      float* y = m.y + c.first * inner + h * P;
      const float* before = m.h + segment * state + h * N * P;
      lower_product(c.rows, P, m.M, Q, m.x, P,
                    [&](int64_t i, int64_t p, Vec v) { store(y + i * inner + p, v); });
      if (has_past(segment))
        product(c.rows, P, N, c.C, channels, 1, before, P, [&](int64_t i, int64_t p, Vec v) {
          add(y + i * inner + p, v * m.from_start[i]);
        });
      if (!has_future(segment)) continue;
      float* after = m.h + (segment + 1) * state + h * N * P;
      weigh(m.to_end, m.x, P, c.rows);
      product(N, P, c.rows, c.B, 1, channels, m.weighted, P, [&](int64_t n, int64_t p, Vec v) {
        store(after + n * P + p, v + load(before + n * P + p) * c.over);
      });
    }
  }

  // Back through the norm and the gate: from dy of the call to dz and the gradient before the skip.
  void gate() {
    for (int64_t t = 0; t < q.length; ++t) {
      const float *z = q.rows + t * q.stride, *dout = q.dy + t * q.dy_stride;
      const float* x = m.xbc + t * channels;
      float *dz = q.drows + t * q.stride, *y = m.y + t * inner, *dy = m.dy + t * inner;
      Vec squares{}, along{};
      // y, dy and dz hold y with the skip, the open gate and its slope until the second loop.
      for (int64_t h = 0; h < s.heads; ++h)
        for (int64_t c = h * P; c < (h + 1) * P; c += W) {
          const Gate gate(load(z + c));
          const Vec value = load(y + c) + load(x + c) * w.D[h], g = value * gate.value;
          squares += g * g, along += g * load(dout + c) * load(w.norm + c);
          store(y + c, value), store(dy + c, gate.value), store(dz + c, gate.slope);
        }
      const float r = 1.0f / __builtin_sqrtf(sum(squares) / float(inner) + w.epsilon);
      const float back = r * r * r * sum(along) / float(inner);
      for (int64_t c = 0; c < inner; c += W) {
        const Vec value = load(y + c), open = load(dy + c), g = value * open, d = load(dout + c);
        add(sums.norm + c, d * g * r);
        const Vec dg = d * load(w.norm + c) * r - g * back;
        store(dz + c, dg * value * load(dz + c));
        store(dy + c, dg * open);
      }
    }
  }

  void backward(int64_t segment) {
    const Part whole = part(segment, 0);
    float *const dB = m.dxbc + whole.first * channels + inner, *const dC = dB + N;
    for (int i = 0; i < whole.rows; ++i)
      for (int64_t n = 0; n < 2 * N; n += W) store(dB + i * channels + n, Vec{});
    for (int i = 0; i < Q * Q; i += W) store(m.sum_of_U + i, Vec{});
    for (int64_t h = 0; h < s.heads; ++h) {
      Part c = part(segment, h);
      const float* dy = m.dy + c.first * inner + h * P;
      const float* before = m.h + segment * state + h * N * P;
      float* dh = m.dh + h * N * P;
      const float* delta = m.delta + h * m.segments * Q + c.first;
      // U without its decays: dy_i·x_j, where c.x is not yet multiplied by Δ.
      transpose_matrix(c.rows, P, c.x, channels, m.transposed, Q);
      product_below_diagonal(
          c.rows, P, dy, inner, m.transposed, Q,
          [&](int64_t i, int64_t j, Vec v) { store(m.U + i * Q + j, v * load(delta + j)); });
      prepare(c, m.U);
      for (int i = 0; i < c.rows * Q; i += W) add(m.sum_of_U + i, load(m.U + i));
      double da[Q + 1] = {}, to_later[Q] = {}, passing = 0;
      differences_of_sums(c, da);

      upper_product(c.rows, P, m.M, Q, dy, inner,
                    [&](int64_t j, int64_t p, Vec v) { store(m.dx + j * P + p, v); });
      if (has_future(segment)) {
        product(c.rows, P, N, c.B, channels, 1, dh, P,
                [&](int64_t j, int64_t p, Vec v) { add(m.dx + j * P + p, v * m.to_end[j]); });
        transpose_matrix(N, P, dh, P, m.transposed, N);
        product(c.rows, N, P, m.x, P, 1, m.transposed, N, [&](int64_t j, int64_t n, Vec v) {
          store(m.part + j * N + n, v * m.to_end[j]);
        });
        for (int j = 0; j < c.rows; ++j) to_later[j] = add_part(j, c.B, dB);
        if (has_past(segment)) passing = c.over * dot(dh, before, N * P);
      }
      if (has_past(segment)) {
        transpose_matrix(N, P, before, P, m.transposed, N);
        product(c.rows, N, P, dy, inner, 1, m.transposed, N, [&](int64_t i, int64_t n, Vec v) {
          store(m.part + i * N + n, v * m.from_start[i]);
        });
        for (int i = 0; i < c.rows; ++i) da[i] += add_part(i, c.C, dC);
      }
      if (has_past(segment) || q.dssm_state) {
        weigh(m.from_start, dy, inner, c.rows);
        product(N, P, c.rows, c.C, 1, channels, m.weighted, P, [&](int64_t n, int64_t p, Vec v) {
          store(dh + n * P + p, v + load(dh + n * P + p) * c.over);
        });
      }
      // The term from token j to dh' contains a_t for every t > j.
      double left = 0;
      for (int t = 0; t < c.rows; ++t) left += to_later[t];
      for (int t = c.rows - 1; t >= 0; --t) {
        left -= to_later[t];
        da[t] += da[t + 1];
        to_later[t] = da[t] + left + passing;
      }
      decays_and_steps(c, to_later);
    }
    lower_product(whole.rows, N, m.sum_of_U, Q, whole.B, channels,
                  [&](int64_t i, int64_t n, Vec v) { add(dC + i * channels + n, v); });
    upper_product(whole.rows, N, m.sum_of_U, Q, whole.C, channels,
                  [&](int64_t j, int64_t n, Vec v) { add(dB + j * channels + n, v); });
  }

  // da_i = Σ_j (S_ij − S_ji), where S is U times C·Bᵀ below the diagonal.
  void differences_of_sums(const Part& c, double* da) const {
    Longs lane;
    for (int l = 0; l < W / 2; ++l) lane[l] = l;
    for (int i = 0; i < c.rows; ++i) {
      Doubles row{};
      for (int j = 0; j < i; j += W / 2) {
        const Doubles product = widened(m.U + i * Q + j) * widened(c.CB + i * Q + j);
        const Doubles terms = lane + j < i ? product : Doubles{};
        Doubles column;
        memcpy(&column, da + j, sizeof column);
        column -= terms;
        memcpy(da + j, &column, sizeof column);
        row += terms;
      }
      da[i] += sum(row);
    }
  }

  // Adds a token's part to its gradient. Returns the dot product of the part and the token's row of
  // `rows`.
  double add_part(int64_t token, const float* rows, float* to) const {
    const float* part = m.part + token * N;
    for (int64_t n = 0; n < N; n += W) add(to + token * channels + n, load(part + n));
    return dot(rows + token * channels, part, N);
  }

  // From dx (the gradient of x·Δ) and da: the gradients of x, dt and the head's parameters.
  void decays_and_steps(const Part& c, const double* da) {
    const int64_t at = c.h * m.segments * Q + c.first;
    float* dx = m.dxbc + c.first * channels + c.h * P;
    for (int i = c.rows - 1; i >= 0; --i) {
      const float *dy = m.dy + (c.first + i) * inner + c.h * P, *x = c.x + i * channels;
      const float step = m.delta[at + i];
      const double along = dot(x, m.dx + i * P, P);
      sums.A_log[c.h] += float(da[i] * m.a[at + i]);
      sums.D[c.h] += float(dot(dy, x, P));
      const float ddt = float(along + da[i] * w.A[c.h]) * m.ddt[at + i];
      sums.dt_bias[c.h] += ddt;
      q.drows[(c.first + i) * q.stride + inner + channels + c.h] = ddt;
      for (int64_t p = 0; p < P; p += W)
        store(dx + i * channels + p, load(m.dx + i * P + p) * step + load(dy + p) * w.D[c.h]);
    }
  }

  // Back through SiLU and the convolution of W channels from c on, for K taps. Input t − K + 1 is
  // part of the K outputs up to t, so its gradient is complete after output t.
  template <int K>
  void convolution_gradients_of(int64_t c) {
    Vec taps[K], in[K], du[K], dtaps[K], dbias = load(sums.conv_bias + c);
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      taps[k] = load(w.taps + k * channels + c), dtaps[k] = load(sums.taps + k * channels + c);
      in[k] = du[k] = Vec{};
    }
    for (int k = 1; k < K; ++k) in[k] = load(input(k - K) + c);
    for (int64_t t = 0; t < q.length + K - 1; ++t) {
      // in and du are the last K inputs and gradients of outputs, oldest first.
      for (int k = 1; k < K; ++k) in[k - 1] = in[k], du[k - 1] = du[k];
      du[K - 1] = Vec{};
      if (t < q.length) {
        in[K - 1] = load(input(t) + c);
        du[K - 1] = load(m.dxbc + t * channels + c) * load(m.slope + t * channels + c);
        dbias += du[K - 1];
        for (int k = 0; k < K; ++k) dtaps[k] += du[K - 1] * in[k];
      }
      Vec total{};
      for (int k = 0; k < K; ++k) total += taps[k] * du[K - 1 - k];
      store(input_gradient(t - K + 1) + c, total);
    }
    store(sums.conv_bias + c, dbias);
    for (int k = 0; k < K; ++k) store(sums.taps + k * channels + c, dtaps[k]);
  }

  float* input_gradient(int64_t t) const {
    return t < 0 ? m.past + (past + t) * channels : q.drows + t * q.stride + inner;
  }

  void convolution_gradients() {
    for (int64_t c = 0; c < channels; c += W)
      switch (s.taps) {
        case 2: convolution_gradients_of<2>(c); break;
        case 3: convolution_gradients_of<3>(c); break;
        default: convolution_gradients_of<4>(c);
      }
    for (int64_t k = 0; q.dconv_state_out && k < past; ++k) {
      float* to = input_gradient(q.length - past + k);
      for (int64_t c = 0; c < channels; ++c) to[c] += q.dconv_state_out[c * past + k];
    }
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < past; ++k) q.dconv_state[c * past + k] = m.past[k * channels + c];
  }

  void run() {
    convolve();
    discretise();
    for (int64_t i = 0; i < state; i += W) store(m.h + i, Vec{}), store(m.dh + i, Vec{});
    if (q.ssm_state) transpose_heads(P, N, q.ssm_state, m.h);
    for (int64_t segment = 0; segment < m.segments; ++segment) forward(segment);
    gate();

    if (q.dssm_state_out) transpose_heads(P, N, q.dssm_state_out, m.dh);
    for (int64_t segment = m.segments - 1; segment >= 0; --segment) backward(segment);
    if (q.dssm_state) transpose_heads(N, P, m.dh, q.dssm_state);
    convolution_gradients();
  }

  void transpose_heads(int64_t rows, int64_t columns, const float* from, float* to) {
    for (int64_t h = 0; h < s.heads; ++h)
      transpose_matrix(rows, columns, from + h * N * P, columns, to + h * N * P, rows);
  }
};

void run(const Shape& s, const Weights& w, const Sequence& q, const WeightSums& sums,
         float* memory) {
  Pass{s, w, q, sums, Work(s, q.length, memory)}.run();
}

size_t floats(const Shape& s, int64_t length) { return size_t(Work(s, length, nullptr).floats); }

}  // namespace

extern const Adjoint BSMAMBA2_ADJOINT;
const Adjoint BSMAMBA2_ADJOINT{floats, run};

}  // namespace bsmamba2
