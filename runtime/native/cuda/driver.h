// Runs the compiled kernels through NVIDIA's driver. The driver's library is opened at the first
// call, so linking this needs no CUDA toolkit and it loads on machines without a GPU.
#pragma once

#include "launch.h"

namespace bsmamba2::cuda {

using Stream = struct CUstream_st*;

// Sets the folder of the .cubin and .ptx files that compile.py writes.
void set_kernels(const char* folder);

// Enqueues a call on a stream. A call without a workspace gets the stream's own, which is kept and
// grows. Throws std::runtime_error with a message that states how to fix the problem.
void scan(Call call, Kind kind, int64_t N, Stream stream);

// The same for residual_norm, which needs no workspace.
void residual_norm(Residual call, Kind kind, Stream stream);

// Frees the workspace of a stream.
void release(Stream stream);

}  // namespace bsmamba2::cuda
