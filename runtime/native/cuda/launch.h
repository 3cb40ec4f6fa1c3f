// The kernels that a call launches and their grids, for any host that can launch a kernel by name.
#pragma once

#include <string>

#include "call.h"

namespace bsmamba2::cuda {

// The type of zxbcdt and y.
enum class Kind { fp32, fp16, bf16 };

inline bool has_kernels(int64_t P, int64_t N) { return P == head_dim && (N == 64 || N == 128); }

// Shared memory that CUDA adds to that of every block.
constexpr int64_t reserved_bytes = 1024;

// Calls body(sizes, "kind_nN") for this type of tokens and state size. One block per multiprocessor
// leaves its tensor cores idle while the block waits for memory, so where the shared memory of a
// multiprocessor, in bytes, is too small for two blocks, segments are shorter.
template <class Body>
auto with_sizes(Kind kind, int64_t N, int64_t shared, const Body& body) {
  const auto fits_twice = [shared](auto sizes) {
    return 2 * (int64_t(sizeof(typename decltype(sizes)::Shared)) + reserved_bytes) <= shared;
  };
  if (kind == Kind::fp16) {
    if (N == 64) return body(fp16_n64{}, "fp16_n64");
    if (fits_twice(fp16_n128{})) return body(fp16_n128{}, "fp16_n128");
    return body(fp16_n128_short{}, "fp16_n128_short");
  }
  if (kind == Kind::bf16) {
    if (N == 64) return body(bf16_n64{}, "bf16_n64");
    if (fits_twice(bf16_n128{})) return body(bf16_n128{}, "bf16_n128");
    return body(bf16_n128_short{}, "bf16_n128_short");
  }
  return N == 64 ? body(fp32_n64{}, "fp32_n64") : body(fp32_n128{}, "fp32_n128");
}

// Enough for any GPU: longer segments need more.
inline int64_t workspace_bytes(const Call& call, Kind kind, int64_t N) {
  return with_sizes(kind, N, INT64_MAX,
                    [&](auto sizes, const char*) { return sizes.workspace_bytes(call); });
}

// Calls launch(name, blocks, threads, bytes of shared memory) for each kernel. The kernels must run
// in this order, on one stream.
template <class Launch>
void launch_scan(const Call& call, Kind kind, int64_t N, int64_t shared, const Launch& launch) {
  if (call.batch == 0) return;
  with_sizes(kind, N, shared, [&](auto sizes, const std::string& variant) {
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
