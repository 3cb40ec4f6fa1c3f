// The kernels on a CPU, as one C function.
#include "../../../runtime/native/cuda/launch.h"

#include <device.h>

#include "../../../runtime/native/cuda/mamba2_scan.cu"

#include <map>

#define KERNELS_OF(variant)                                             \
  {"prepare_" #variant, prepare_##variant}, {"advance_" #variant, advance_##variant}, \
  {"normalise_" #variant, normalise_##variant}

static const std::map<std::string, void (*)(const Call&)> kernels = {
    KERNELS_OF(fp32_n64), KERNELS_OF(fp32_n128), KERNELS_OF(fp16_n64),
    KERNELS_OF(fp16_n128), KERNELS_OF(fp16_n128_short), KERNELS_OF(bf16_n64),
    KERNELS_OF(bf16_n128), KERNELS_OF(bf16_n128_short)};

#define RESIDUALS_OF(kind) \
  {"residual_norm_" #kind "_d256", residual_norm_##kind##_d256}, \
  {"residual_norm_" #kind "_d1024", residual_norm_##kind##_d1024}

static const std::map<std::string, void (*)(const Residual&)> residual_kernels = {
    RESIDUALS_OF(fp32), RESIDUALS_OF(fp16), RESIDUALS_OF(bf16)};

extern "C" __attribute__((visibility("default"))) void residual_norm_by_lanes(
    Residual call, int kind, int last_lane_first) {
  launch_residual_norm(call, Kind(kind), [&](const std::string& name, int64_t blocks, int threads,
                                             int shared) {
    for (int64_t i = 0; i < blocks; ++i)
      Block(i, threads, shared).run([&] { residual_kernels.at(name)(call); }, last_lane_first);
  });
}

extern "C" __attribute__((visibility("default"))) void scan_by_lanes(
    Call call, int kind, int N, int64_t shared, int last_lane_first) {
  std::vector<char> workspace(size_t(workspace_bytes(call, Kind(kind), N)) + 256, char(0xff));
  call.workspace =
      reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(workspace.data()) + 255) / 256 * 256);
  const auto launch = [&](const std::string& name, int64_t blocks, int threads, int shared) {
    for (int64_t i = 0; i < blocks; ++i)
      Block(i, threads, shared).run([&] { kernels.at(name)(call); }, last_lane_first);
  };
  launch_scan(call, Kind(kind), N, shared, launch);
}
