// The scan and its gradients as two plain functions, for a host that trains on a CPU. All tensors are
// float32 and of the shapes in scan.h. Both return 0, or 1 where memory ran out. The instruction set is
// the process's, see scan.h; `bsmamba2_isa` says beforehand whether there is one.
#pragma once

#include <cstdint>

namespace bsmamba2 {

struct Sizes {
  int64_t batch, length, heads, head_dim, state, taps, reverse, conv_states, ssm_states, threads;
};
struct Inputs {
  const float *zxbcdt, *conv_weight, *conv_bias, *dt_bias, *A_log, *D, *norm_weight, *conv_state,
      *ssm_state;
};
struct Outputs {
  float *y, *conv_state, *ssm_state;
};
struct OutputGradients {
  const float *y, *conv_state, *ssm_state;
};
struct InputGradients {
  float *zxbcdt, *conv_weight, *conv_bias, *dt_bias, *A_log, *D, *norm_weight, *conv_state,
      *ssm_state;
};

}  // namespace bsmamba2

#define BSMAMBA2_C extern "C" __attribute__((visibility("default")))

BSMAMBA2_C int bsmamba2_scan(const bsmamba2::Sizes*, float epsilon, const bsmamba2::Inputs*,
                             const bsmamba2::Outputs*);

// Gradients of the states that were left may be null, as may be the one of the first ssm_state.
// What a state gives is of the full batch. P and N must be multiples of 64, L at least 1.
BSMAMBA2_C int bsmamba2_scan_gradients(const bsmamba2::Sizes*, float epsilon,
                                       const bsmamba2::Inputs*, const bsmamba2::OutputGradients*,
                                       const bsmamba2::InputGradients*);
