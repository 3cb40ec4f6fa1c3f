// The scan of one segment of one sequence, compiled once for each instruction set (see vector.h).
//
// Let h be the state before the segment; Δ, a = Δ·A and x belong to one head, B and C to all heads;
// i and j are token indices within the segment. The recurrence
// h_t = exp(a_t) h_{t-1} + Δ_t x_t ⊗ B_t unrolls to
//
//     y_i = exp(a_0 + … + a_i) C_i·h  +  Σ_{j≤i} G_ij x_j
//     G_ij = exp(a_{j+1} + … + a_i) (C_i·B_j) Δ_j,  plus D on the diagonal
//     h'  = exp(a_0 + … + a_{Q-1}) h  +  Σ_j exp(a_{j+1} + … + a_{Q-1}) Δ_j x_j ⊗ B_j
//
// which is three matrix products. No decay is divided by another, and no sum of a is subtracted
// from another: each row of G is the row above times exp(a_i), and every other exponent is summed
// from the end where it is zero. All a are negative, so nothing overflows or cancels,
// whether Δ is 1e-6 or 50.
//
// Multiply-adds per token (Q = 64, the paper's H = 16, P = 64, N = 128):
//     C·Bᵀ       N·Q/2    =   4,096   once for all heads
//     G·x        P·Q/2    =   2,048   per head     32,768
//     C·h        P·N      =   8,192   per head    131,072   unless the state is zero
//     x ⊗ B      P·N      =   8,192   per head    131,072   unless the next state is not needed
//     convolution, SiLU, gate, norm: 2 I + 2 N values each, about 20 instructions per W values
// in total 37 k for a band axis of 62 (one segment, no state) and 283 k for a time axis of 801.
#include "half.h"
#include "scan.h"
#include "tile.h"
#include "vector.h"

namespace bsmamba2 {
namespace {

constexpr int Q = segment_length;

INLINE int64_t ceil(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
INLINE int64_t panels(const Shape& s) { return ceil(s.head_dim, panel) / panel; }

// The arrays in a segment's block. Rows are tokens unless noted.
struct Block {
  int64_t states, heads;  // N and H, rounded up to whole vectors
  float *B, *C;           // (Q, N)
  float* CB;              // (Q, Q), C_i·B_j
  float *delta, *decay;   // (Q, H), Δ and exp(a)
  float *from_start;      // (Q, H), exp(a_0 + … + a_i)
  float *to_end;          // (Q, H), exp(a_{i+1} + … + a_last) Δ_i
  float* x;               // (H, panels, Q, panel); finish overwrites it with y before the gate
  float* G;               // (Q, Q), of one head
  float* scratch;         // (N, Q) Bᵀ, or (Q, panel) x times to_end
  float* gated;           // (I), one token
  int64_t floats = 0;     // in total

  Block(const Shape& s, float* at) : states(ceil(s.state, W)), heads(ceil(s.heads, W)) {
    auto take = [&](int64_t count) {
      float* part = at ? at + floats : nullptr;
      floats += ceil(count, 16);
      return part;
    };
    B = take(Q * states), C = take(Q * states), CB = take(Q * Q);
    delta = take(Q * heads), decay = take(Q * heads);
    from_start = take(Q * heads), to_end = take(Q * heads);
    x = take(s.heads * panels(s) * Q * panel);
    G = take(Q * Q), scratch = take(Q * (states > panel ? states : panel));
    gated = take(s.inner());
  }
  Block(const Shape& s, const float* at) : Block(s, const_cast<float*>(at)) {}
};

size_t block_floats(const Shape& s) {
  return size_t(Block(s, static_cast<float*>(nullptr)).floats);
}

size_t state_floats(const Shape& s) { return size_t(s.heads * panels(s) * s.state * panel); }

// ---- prepare ----------------------------------------------------------------------------------

// Computes SiLU of the causal convolution of n tokens, for W channels from c on, or for the `count`
// channels that remain.
template <int K, class Count>
INLINE void convolve_vector(const Weights& w, int64_t channels, const float* const* xbc, int n,
                            int64_t c, Count count, float* to, int64_t to_stride) {
  Vec taps[K], past[K], bias = load(w.conv_bias + c, count);
#pragma GCC unroll 4
  for (int k = 0; k < K; ++k) taps[k] = load(w.taps + k * channels + c, count);
#pragma GCC unroll 4
  for (int k = 1; k < K; ++k) past[k] = load(xbc[k - K] + c, count);
  for (int t = 0; t < n; ++t, to += to_stride) {
    Vec sum = bias;
#pragma GCC unroll 4
    for (int k = 1; k < K; ++k) past[k - 1] = past[k];
    past[K - 1] = load(xbc[t] + c, count);
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) sum += taps[k] * past[k];
    store(to, silu(sum));
  }
}

// Processes eight tokens at a time, so that memory is read along whole rows. The padding at the end
// of an output row is never read.
template <int K>
void convolve(const Shape& s, const Weights& w, const float* const* xbc, int rows, Block& m) {
  const int64_t channels = s.channels();
  for (int t = 0; t < rows; t += 8) {
    const int n = int(lesser(8, rows - t));
    auto run = [&](int64_t c, int64_t count, float* to, int64_t width) {
      each_vector(count, [&](int64_t i, auto left) {
        convolve_vector<K>(w, channels, xbc + t, n, c + i, left, to + t * width + i, width);
      });
    };
    float* x = m.x;
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t p = 0; p < s.head_dim; p += panel, x += Q * panel)
        run(h * s.head_dim + p, lesser(panel, s.head_dim - p), x, panel);
    run(s.inner(), s.state, m.B, m.states);
    run(s.inner() + s.state, s.state, m.C, m.states);
  }
}

void steps(const Shape& s, const Weights& w, const float* const* xbc, int rows, Block& m) {
  each_vector(s.heads, [&](int64_t h, auto count) {
    const Vec A = load(w.A + h, count), bias = load(w.dt_bias + h, count);
    Vec total{};
    for (int t = 0; t < rows; ++t) {
      const int64_t at = t * m.heads + h;
      Vec delta = softplus(load(xbc[t] + s.channels() + h, count) + bias), a = delta * A;
      total += a;
      store(m.delta + at, delta);
      store(m.decay + at, exp(a));
      store(m.from_start + at, exp(total));
      store(m.to_end + at, a);
    }
    total = Vec{};
    for (int t = rows - 1; t >= 0; --t) {
      const int64_t at = t * m.heads + h;
      Vec a = load(m.to_end + at);
      store(m.to_end + at, exp(total) * load(m.delta + at));
      total += a;
    }
  });
}

void products_of_C_and_B(const Shape& s, int rows, Block& m) {
  for (int t = 0; t < rows; t += W)
    for (int64_t n = 0; n < m.states; n += W)
      transpose(m.B + t * m.states + n, m.states, m.scratch + n * Q + t, Q);
  constexpr int vectors = 2;
  each_tile(rows, [&](int64_t i, auto wide) {
    for (int64_t j = 0; j < i + wide.rows; j += vectors * W) {
      Tile<wide.rows, vectors> tile;
      tile.multiply(m.C + i * m.states, m.states, 1, m.scratch + j, Q, s.state);
      tile.each([&](int r, int v, Vec sum) { store(m.CB + (i + r) * Q + j + v, sum); });
    }
  });
}

void prepare(const Shape& s, const Weights& w, const float* const* xbc, int rows, float* block) {
  Block m(s, block);
  if (s.taps == 4) convolve<4>(s, w, xbc, rows, m);
  if (s.taps == 3) convolve<3>(s, w, xbc, rows, m);
  if (s.taps == 2) convolve<2>(s, w, xbc, rows, m);
  steps(s, w, xbc, rows, m);
  products_of_C_and_B(s, rows, m);
}

// ---- the state --------------------------------------------------------------------------------

// Weights each token of one panel by Δ and its decay to the end of the segment.
INLINE void weigh(const Block& m, int64_t h, int rows, const float* x) {
  for (int t = 0; t < rows; ++t) {
    const Vec weight = all(m.to_end[t * m.heads + h]);
    for (int v = 0; v < panel; v += W)
      store(m.scratch + t * panel + v, weight * load(x + t * panel + v));
  }
}

// Computes the panel's state after the segment; `after` may be `before`.
INLINE void advance_panel(const Shape& s, const Block& m, int64_t h, int rows, const float* before,
                          float* after) {
  each_tile(s.state, [&](int64_t n, auto tile) {
    tile.multiply(m.B + n, 1, m.states, m.scratch, panel, rows);
    const Vec decay = all(m.from_start[(rows - 1) * m.heads + h]);
    tile.each([&](int r, int v, Vec sum) {
      const int64_t at = (n + r) * panel + v;
      store(after + at, before ? sum + decay * load(before + at) : sum);
    });
  });
}

void advance(const Shape& s, int rows, const float* block, float* after) {
  const Block m(s, block);
  const float* x = m.x;
  for (int64_t h = 0; h < s.heads; ++h)
    for (int64_t p = 0; p < panels(s); ++p, x += Q * panel, after += s.state * panel) {
      weigh(m, h, rows, x);
      advance_panel(s, m, h, rows, nullptr, after);
    }
}

// running' = decay · running + own, and own' = running, the state before the segment.
void combine(const Shape& s, int64_t head, int rows, const float* block, float* running,
             float* own) {
  const Block m(s, block);
  const int64_t size = panels(s) * s.state * panel;
  const Vec decay = all(m.from_start[(rows - 1) * m.heads + head]);
  running += head * size, own += head * size;
  for (int64_t i = 0; i < size; i += W) {
    Vec before = load(running + i);
    store(running + i, load(own + i) + decay * before);
    store(own + i, before);
  }
}

void load_state(const Shape& s, const float* state, float* to) {
  for (int64_t h = 0; h < s.heads; ++h)
    for (int64_t p = 0; p < panels(s) * panel; p += panel, to += s.state * panel)
      for (int64_t v = 0; v < panel; v += W)
        for (int64_t n = 0; n < s.state; n += W) {
          const float* from = state + (h * s.head_dim + p + v) * s.state + n;
          if (p + v + W <= s.head_dim && n + W <= s.state)
            transpose(from, s.state, to + n * panel + v, panel);
          else
            for (int64_t c = n; c < lesser(n + W, s.state); ++c, ++from)
              for (int64_t r = 0; r < W; ++r)
                to[c * panel + v + r] = p + v + r < s.head_dim ? from[r * s.state] : 0;
        }
}

void store_state(const Shape& s, const float* from, float* state) {
  for (int64_t h = 0; h < s.heads; ++h)
    for (int64_t p = 0; p < panels(s) * panel; p += panel, from += s.state * panel)
      for (int64_t v = 0; v < lesser(panel, s.head_dim - p); v += W)
        for (int64_t n = 0; n < s.state; n += W) {
          float* to = state + (h * s.head_dim + p + v) * s.state + n;
          if (p + v + W <= s.head_dim && n + W <= s.state)
            transpose(from + n * panel + v, panel, to, s.state);
          else
            for (int64_t c = n; c < lesser(n + W, s.state); ++c, ++to)
              for (int64_t r = 0; r < lesser(W, s.head_dim - p - v); ++r)
                to[r * s.state] = from[c * panel + v + r];
        }
}

// ---- finish -----------------------------------------------------------------------------------

// Computes rows bW … bW + W - 1 of G, then the rows below. decays[v] holds the decays of W columns
// of the current row; each new row i multiplies them by exp(a_i) and starts column i with Δ_i.
template <int b>
INLINE void rows_of_G(int rows, const float* delta, const float* decay, int64_t stride, float D,
                      const float* CB, float* G, Vec (&decays)[Q / W]) {
  Ints lane;
  for (int l = 0; l < W; ++l) lane[l] = l;
  decays[b] = Vec{};
  const int end = rows < (b + 1) * W ? rows : (b + 1) * W;
  for (int i = b * W; i < end; ++i) {
    const Vec factor = all(decay[i * stride]);
    const Ints diagonal = lane == i - b * W;
#pragma GCC unroll 16
    for (int v = 0; v < b; ++v) {
      decays[v] *= factor;
      store(G + i * Q + v * W, load(CB + i * Q + v * W) * decays[v]);
    }
    decays[b] = diagonal ? all(delta[i * stride]) : decays[b] * factor;
    store(G + i * Q + b * W,
          load(CB + i * Q + b * W) * decays[b] + (diagonal ? all(D) : Vec{}));
    // A tile of R rows reads up to this far right of its first row's diagonal.
    for (int v = b + 1; v <= b + (R + W - 2) / W && v < Q / W; ++v) store(G + i * Q + v * W, Vec{});
  }
  if constexpr (b + 1 < Q / W)
    if (end < rows) rows_of_G<b + 1>(rows, delta, decay, stride, D, CB, G, decays);
}

// Gates and normalises one token: y times SiLU(z). In y, panels are Q · panel floats apart.
void gate_and_norm(const Shape& s, const Weights& w, const float* z, const float* y, float* gated,
                   float* out, bool past_caches) {
  Vec squares{};
  for (int64_t h = 0; h < s.heads; ++h)
    for (int64_t p = 0; p < s.head_dim; p += panel, y += Q * panel)
      each_vector(lesser(panel, s.head_dim - p), [&](int64_t i, auto count) {
        const int64_t c = h * s.head_dim + p + i;
        const Vec product = load(y + i, count) * silu(load(z + c, count));
        squares += product * product;
        store(gated + c, product, count);
      });
  const float scale = 1.0f / __builtin_sqrtf(sum(squares) / float(s.inner()) + w.epsilon);
  if (past_caches)
    for (int64_t c = 0; c < s.inner(); c += W)
      store_past_caches(out + c, load(gated + c) * scale * load(w.norm + c));
  else
    each_vector(s.inner(), [&](int64_t c, auto count) {
      store(out + c, load(gated + c, count) * scale * load(w.norm + c, count), count);
    });
}

void finish(const Shape& s, const Weights& w, const float* const* z, float* const* out, int rows,
            bool past_caches, float* block, const float* before, float* after) {
  Block m(s, block);
  float* x = m.x;
  for (int64_t h = 0; h < s.heads; ++h) {
    Vec decays[Q / W];
    rows_of_G<0>(rows, m.delta + h, m.decay + h, m.heads, w.D[h], m.CB, m.G, decays);
    for (int64_t p = 0; p < s.head_dim; p += panel, x += Q * panel) {
      if (after) weigh(m, h, rows, x);
      // From the last tile to the first: y overwrites those rows of x that no later tile reads.
      each_tile(rows, [&](int64_t i, auto tile) {
        // Prefetch the gate's input.
        const int64_t column = h * s.head_dim + p, end = lesser(column + panel, s.inner());
        for (int r = 0; r < tile.rows; ++r)
          for (int64_t c = column; c < end; c += 16) __builtin_prefetch(z[i + r] + c, 0, 2);
        if (before) {
          tile.multiply(m.C + i * m.states, m.states, 1, before, panel, s.state);
#pragma GCC unroll 8
          for (int r = 0; r < tile.rows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) tile.sums[r][v] *= m.from_start[(i + r) * m.heads + h];
        }
        tile.multiply(m.G + i * Q, Q, 1, x, panel, i + tile.rows);
        tile.each([&](int r, int v, Vec sum) { store(x + (i + r) * panel + v, sum); });
      });
      if (after) {
        advance_panel(s, m, h, rows, before, after);
        after += s.state * panel;
      }
      if (before) before += s.state * panel;
    }
  }
  for (int i = 0; i < rows; ++i)
    gate_and_norm(s, w, z[i], m.x + i * panel, m.gated, out[i], past_caches);
  if (past_caches) fence();
}

}  // namespace

extern const Adjoint BSMAMBA2_ADJOINT;
extern const Isa BSMAMBA2_ISA;
const Isa BSMAMBA2_ISA{BSMAMBA2_ISA_NAME, block_floats, state_floats, prepare, advance,
                       combine,           finish,       load_state,   store_state,
                       widen,             narrow,       &BSMAMBA2_ADJOINT};

}  // namespace bsmamba2
