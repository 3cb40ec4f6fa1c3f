// The memory of the gradients of one sequence; the names are those of adjoint.cpp.
#pragma once

#include "adjoint.h"

namespace bsmamba2 {
namespace {

constexpr int Q = segment_length;

// The arrays of one sequence. Rows are tokens unless noted.
struct Work {
  int64_t segments;
  float *past;                // (K - 1, I + 2N), the convolution's inputs before the first token
  float *xbc, *slope, *dxbc;  // (L, I + 2N): SiLU of the convolution, its slope, its gradient
  float *y, *dy;              // (L, I): y before the skip and the gate, and its gradient
  float *delta, *a, *ddt;     // (H, L)
  float *h;                   // (segments + 1, H, N, P): before each segment, and the last
  float *dh;                  // (H, N, P)
  float* CB;                  // (segments, Q, Q), C·Bᵀ
  float *M, *U;               // (Q, Q) of one head
  float* sum_of_U;            // (Q, Q), over all heads
  float* transposed;          // (max(N, P), max(Q, N, P)), any transposed matrix
  float *x, *dx, *weighted;   // (Q, P) of one head
  float *from_start, *to_end; // (Q)
  float* part;                // (Q, N), the contribution of a state to dB or dC
  int64_t floats = 0;

  Work(const Shape& s, int64_t length, float* at) : segments((length + Q - 1) / Q) {
    auto take = [&](int64_t count) {
      float* part = at ? at + floats : nullptr;
      floats += (count + 15) / 16 * 16;
      return part;
    };
    const int64_t state = s.inner() * s.state, larger = s.state > s.head_dim ? s.state : s.head_dim;
    const int64_t padded = segments * Q;
    past = take((s.taps - 1) * s.channels());
    xbc = take(padded * s.channels()), slope = take(padded * s.channels());
    dxbc = take(padded * s.channels());
    y = take(padded * s.inner()), dy = take(padded * s.inner());
    delta = take(s.heads * padded), a = take(s.heads * padded);
    ddt = take(s.heads * padded);
    h = take((segments + 1) * state), dh = take(state);
    CB = take(segments * Q * Q), M = take(Q * Q), U = take(Q * Q);
    sum_of_U = take(Q * Q);
    transposed = take(larger * (larger > Q ? larger : Q));
    x = take(Q * s.head_dim), dx = take(Q * s.head_dim), weighted = take(Q * s.head_dim);
    from_start = take(Q), to_end = take(Q);
    part = take(Q * s.state);
  }
};

}  // namespace
}  // namespace bsmamba2
