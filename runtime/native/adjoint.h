// The gradients of the scan, for training on a CPU: the contribution of one sequence.
#pragma once

#include "scan.h"

namespace bsmamba2 {

// One sequence. Tokens are in scan order, `stride` floats apart, so the stride of a reversed scan
// is negative. ssm_state is null if it is zero. The gradients of the output states are null if
// those states were not used; dssm_state is null if it is not needed. P and N are multiples of 64.
struct Sequence {
  int64_t length;
  const float* rows;  // (L, 2I + 2N + H)
  int64_t stride;
  const float* conv_state;  // (I + 2N, K - 1)
  const float* ssm_state;   // (H, P, N)
  const float* dy;          // (L, I)
  int64_t dy_stride;
  const float* dconv_state_out;
  const float* dssm_state_out;
  float* drows;  // like rows
  float* dconv_state;
  float* dssm_state;
};

// The gradients of the weights, which are sums over all tokens.
struct WeightSums {
  float* taps;       // (K, I + 2N)
  float* conv_bias;  // (I + 2N)
  float* dt_bias;    // (H)
  float* A_log;      // (H)
  float* D;          // (H)
  float* norm;       // (I)
};

// The functions that each instruction set implements: the floats of memory that `run` needs, and
// `run`, which adds to the sums and writes the other gradients.
struct Adjoint {
  size_t (*floats)(const Shape&, int64_t length);
  void (*run)(const Shape&, const Weights&, const Sequence&, const WeightSums&, float* memory);
};

}  // namespace bsmamba2
