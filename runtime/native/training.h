// The scan and its gradients as two C functions, for training on a CPU. All tensors are float32 and
// have the shapes in scan.h. Both functions return 0, or 1 if they failed (for example if memory
// ran out). They use the instruction set of the process (see scan.h); call `bsmamba2_isa` first to
// check that there is one.
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

// The output states' gradients may be null, and so may the gradient of the initial ssm_state. The
// gradients of the initial states have the full batch size. P and N must be multiples of 64, and L
// at least 1.
BSMAMBA2_C int bsmamba2_scan_gradients(const bsmamba2::Sizes*, float epsilon,
                                       const bsmamba2::Inputs*, const bsmamba2::OutputGradients*,
                                       const bsmamba2::InputGradients*);
