// The kernels that a call launches and their grids, for any host that can launch a kernel by name.
#pragma once

#include <string>

#include "call.h"

namespace bsmamba2::cuda {

// The type of zxbcdt and y.
enum class Kind { fp32, fp16, bf16 };

inline bool has_kernels(int64_t P, int64_t N) { return P == head_dim && (N == 64 || N == 128); }

// Calls body(Sizes<T, N>{}, "kind_nN") for this type of tokens and state size.
template <class Body>
auto with_sizes(Kind kind, int64_t N, const Body& body) {
  if (kind == Kind::fp16)
    return N == 64 ? body(Sizes<Half, 64>{}, "fp16_n64") : body(Sizes<Half, 128>{}, "fp16_n128");
  if (kind == Kind::bf16)
    return N == 64 ? body(Sizes<Bfloat, 64>{}, "bf16_n64")
                   : body(Sizes<Bfloat, 128>{}, "bf16_n128");
  return N == 64 ? body(Sizes<float, 64>{}, "fp32_n64") : body(Sizes<float, 128>{}, "fp32_n128");
}

inline int64_t workspace_bytes(const Call& call, Kind kind, int64_t N) {
  return with_sizes(kind, N, [&](auto sizes, const char*) { return sizes.workspace_bytes(call); });
}

// Calls launch(name, blocks, threads, bytes of shared memory) for each kernel. The kernels must run
// in this order, on one stream.
template <class Launch>
void launch_scan(const Call& call, Kind kind, int64_t N, const Launch& launch) {
  if (call.batch == 0) return;
  with_sizes(kind, N, [&](auto sizes, const std::string& variant) {
    using S = decltype(sizes);
    constexpr int64_t warps = S::normalise_threads / 32;
    launch("prepare_" + variant, call.batch * S::prepare_blocks(call), S::prepare_threads, 0);
    launch("advance_" + variant, call.batch * call.heads, S::threads,
           int(sizeof(typename S::Shared)));
    if (call.length)
      launch("normalise_" + variant, (call.batch * call.length + warps - 1) / warps,
             S::normalise_threads, 0);
  });
}

// The same for a call of residual_norm.
template <class Launch>
void launch_residual_norm(const Residual& call, Kind kind, const Launch& launch) {
  constexpr int64_t warps = residual_threads / 32;
  const int64_t rows = call.batch * call.m * call.n;
  if (rows == 0) return;
  const std::string type = kind == Kind::fp16 ? "fp16" : kind == Kind::bf16 ? "bf16" : "fp32";
  launch("residual_norm_" + type + (call.features > 256 ? "_d1024" : "_d256"),
         (rows + warps - 1) / warps, residual_threads, 0);
}

}  // namespace bsmamba2::cuda
