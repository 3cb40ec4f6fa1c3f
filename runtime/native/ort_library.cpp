// The library's entry: gives ONNX Runtime the operators.
#include <cstdio>

#include "ort_kernel.h"

// Called by SessionOptions.register_custom_ops_library.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace bsmamba2;
  const OrtApi* api = base->GetApi(ort_api_version);
  if (!api) {
    char sentence[160];
    std::snprintf(sentence, sizeof sentence,
                  "bsmamba2's kernels need ONNX Runtime 1.17 or newer; this is %s.",
                  base->GetVersionString());
    return create_status(base->GetApi(1), ORT_FAIL, sentence);
  }
  ort(api);
  return guarded("bsmamba2", [=] {
    isa();
    static OrtCustomOpDomain* const domain = [] {  // lent to all sessions
      OrtCustomOpDomain* created = nullptr;
      check(ort().CreateCustomOpDomain("bsmamba2", &created));
      check(ort().CustomOpDomain_Add(created, &scan_operator()));
      check(ort().CustomOpDomain_Add(created, &mixer_operator()));
      return created;
    }();
    check(ort().AddCustomOpDomain(options, domain));
  });
}
