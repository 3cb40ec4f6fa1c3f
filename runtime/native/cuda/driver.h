// Runs the compiled kernels through NVIDIA's driver alone. Its library is opened when the first
// kernel is wanted, so whoever links this needs nothing of CUDA, at build time or on a machine
// without a GPU.
#pragma once

#include "launch.h"

namespace bsmamba2::cuda {

using Stream = struct CUstream_st*;

// The folder of the .cubin and .ptx files that compile.py wrote.
void set_kernels(const char* folder);

// Puts a call on a stream of the current context; its workspace is filled in here, one a stream,
// kept and grown. Throws std::runtime_error with a sentence that says what mends it.
void scan(Call call, Kind kind, int64_t N, Stream stream);

}  // namespace bsmamba2::cuda
