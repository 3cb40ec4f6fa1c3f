// The library's entry point, which registers the operators.
#include <cstdio>
#include <exception>

#include "cuda/driver.h"
#include "ort_kernel.h"

// Returns the name of the instruction set in use, or "" if BSMAMBA2_ISA names one that the machine
// does not support.
extern "C" __attribute__((visibility("default"))) const char* bsmamba2_isa() {
  try {
    return bsmamba2::isa().name;
  } catch (const std::exception&) {
    return "";
  }
}

// Returns the products that a speed ("exact" or "fast") uses, for example "bf16x3 (amx)", or an error.
// The text is valid until the thread's next call.
extern "C" __attribute__((visibility("default"))) const char* bsmamba2_products(const char* speed) {
  static thread_local std::string text;
  try {
    text = bsmamba2::describe_products(bsmamba2::speed_of(speed));
  } catch (const std::exception& error) {
    text = error.what();
  }
  return text.c_str();
}

namespace bsmamba2 {
namespace {

// The session option with the speed of products: "exact", the default, or "fast".
constexpr const char* speed_option = "bsmamba2.speed";

// The session option with the folder of the CUDA kernels. A session with this option gets only the
// CUDA operators: ONNX Runtime would assign nodes to the CPU if it had CPU kernels for them.
constexpr const char* cuda_kernels = "bsmamba2.cuda_kernels";

std::string setting(const OrtSessionOptions* options, const char* key) {
  int found = 0;
  size_t bytes = 0;
  check(ort().HasSessionConfigEntry(options, key, &found));
  if (!found) return {};
  check(ort().GetSessionConfigEntry(options, key, nullptr, &bytes));
  std::string value(bytes, '\0');
  check(ort().GetSessionConfigEntry(options, key, value.data(), &bytes));
  return value.c_str();
}

OrtCustomOpDomain* domain(std::initializer_list<const OrtCustomOp*> operators) {
  OrtCustomOpDomain* created = nullptr;
  check(ort().CreateCustomOpDomain("bsmamba2", &created));
  for (const OrtCustomOp* op : operators) check(ort().CustomOpDomain_Add(created, op));
  return created;
}

}  // namespace
}  // namespace bsmamba2

// Called by SessionOptions.register_custom_ops_library.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace bsmamba2;
  const OrtApi* api = base->GetApi(ort_api_version);
  if (!api) {
    char message[160];
    std::snprintf(message, sizeof message,
                  "bsmamba2's kernels need ONNX Runtime 1.18 or newer; got %s.",
                  base->GetVersionString());
    return create_status(base->GetApi(1), ORT_FAIL, message);
  }
  static const OrtApi* const first = api;
  if (api != first)
    return create_status(api, ORT_FAIL,
                         "bsmamba2's kernels can serve only one ONNX Runtime per process, and "
                         "another one has already loaded them.");
  ort(api);
  return guarded("bsmamba2", [=] {
    isa();
    // Shared by all sessions.
    static OrtCustomOpDomain* const exact =
        domain({&scan_operator(), &mixer_operator(Speed::exact)});
    static OrtCustomOpDomain* const fast = domain({&scan_operator(), &mixer_operator(Speed::fast)});
    static OrtCustomOpDomain* const on_cuda = domain(
        {&cuda_scan_operator(), &residual_norm_operator<ORT_FLOAT>(),
         &residual_norm_operator<ORT_FLOAT16>(), &residual_norm_operator<ORT_BFLOAT16>()});
    const std::string kernels = setting(options, cuda_kernels);
    if (!kernels.empty()) cuda::set_kernels(kernels.c_str());
    const Speed speed = speed_of(setting(options, speed_option).c_str());
    OrtCustomOpDomain* const on_cpu = speed == Speed::fast ? fast : exact;
    check(ort().AddCustomOpDomain(options, kernels.empty() ? on_cpu : on_cuda));
  });
}
