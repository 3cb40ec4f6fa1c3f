// The gradients of the scan, for training on a CPU: what one sequence gives to each input.
#pragma once

#include "scan.h"

namespace bsmamba2 {

// One sequence. Tokens are in scan order: `stride` floats from one to the next, backwards in memory
// where the scan is. The state may be null: zero. So may its gradients: nobody read the state that
// was left, or wants the gradient of the first. P and N are multiples of 64.
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
  float* drows;  // as rows
  float* dconv_state;
  float* dssm_state;
};

// Sums over all tokens, which the weights' gradients are.
struct WeightSums {
  float* taps;       // (K, I + 2N)
  float* conv_bias;  // (I + 2N)
  float* dt_bias;    // (H)
  float* A_log;      // (H)
  float* D;          // (H)
  float* norm;       // (I)
};

// What one instruction set offers: the floats of memory that it needs, and the gradients. It adds to
// the sums and writes the rest.
struct Adjoint {
  size_t (*floats)(const Shape&, int64_t length);
  void (*run)(const Shape&, const Weights&, const Sequence&, const WeightSums&, float* memory);
};

}  // namespace bsmamba2
