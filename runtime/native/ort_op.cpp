// The operator bsmamba2::mamba2_scan for ONNX Runtime's CPU and CUDA providers.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "cuda/driver.h"
#include "ort_api.h"
#include "scan.h"

namespace bsmamba2 {
namespace {

// What does not fit is thrown as this and becomes an OrtStatus at the border to C.
struct Refusal : std::runtime_error {
  explicit Refusal(const std::string& sentence) : runtime_error("mamba2_scan: " + sentence) {}
};

// Set once, by the first call, which registers the library and hands the API over.
const Ort& ort(const OrtApi* api = nullptr) {
  static const Ort table(api);
  return table;
}

void check(OrtStatus* status) {
  if (!status) return;
  const std::string message = ort().GetErrorMessage(status);
  ort().ReleaseStatus(status);
  throw std::runtime_error(message);
}

// Runs what may throw and returns what ONNX Runtime understands.
template <class Body>
OrtStatus* guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Refusal& refusal) {
    return ort().CreateStatus(ORT_INVALID_ARGUMENT, refusal.what());
  } catch (const std::bad_alloc&) {
    return ort().CreateStatus(ORT_FAIL, "mamba2_scan: not enough memory for the workspace.");
  } catch (const std::exception& error) {
    return ort().CreateStatus(ORT_FAIL, error.what());
  }
}

// The instruction set: the best one, or that which BSMAMBA2_ISA names at the first registration.
const Isa& isa() {
  static const Isa* const chosen = [] {
    const char* asked = std::getenv("BSMAMBA2_ISA");
    if (const Isa* found = choose_isa(asked)) return found;
    throw std::runtime_error("BSMAMBA2_ISA must be one of " + isa_names() + " here; got " + asked +
                             ".");
  }();
  return *chosen;
}

// ---- Tensors ----------------------------------------------------------------------------------

enum Input {
  zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, ssm_state
};
enum Output { y, conv_state_out, ssm_state_out };
constexpr size_t input_count = 9, output_count = 3;
constexpr const char* input_names[input_count] = {
    "zxbcdt", "conv_weight", "conv_bias",  "dt_bias",  "A_log",
    "D",      "norm_weight", "conv_state", "ssm_state"};

struct Dimensions {
  size_t count = 0;
  int64_t sizes[4] = {};
  int64_t operator[](size_t i) const { return sizes[i]; }
};

std::string text(const int64_t* sizes, size_t count) {
  std::string joined = "(";
  for (size_t i = 0; i < count; ++i) joined += (i ? ", " : "") + std::to_string(sizes[i]);
  return joined + ")";
}

struct Tensor {
  const char* name;
  Dimensions dimensions;
  int type = ORT_UNDEFINED;
  const void* data = nullptr;

  Tensor(OrtKernelContext* context, Input input, size_t rank) : name(input_names[input]) {
    const OrtValue* value = nullptr;
    check(ort().KernelContext_GetInput(context, input, &value));
    if (!value) throw Refusal(std::string(name) + " is missing; all nine inputs are needed.");
    OrtTypeAndShape* raw = nullptr;
    check(ort().GetTensorTypeAndShape(value, &raw));
    const std::unique_ptr<OrtTypeAndShape, void (*)(OrtTypeAndShape*)> info(
        raw, ort().ReleaseTensorTypeAndShapeInfo);
    check(ort().GetDimensionsCount(raw, &dimensions.count));
    if (dimensions.count != rank)
      throw Refusal(std::string(name) + " must have " + std::to_string(rank) + " dimensions; got " +
                    std::to_string(dimensions.count) + ".");
    check(ort().GetDimensions(raw, dimensions.sizes, rank));
    check(ort().GetTensorElementType(raw, &type));
    void* mutable_data = nullptr;
    check(ort().GetTensorMutableData(const_cast<OrtValue*>(value), &mutable_data));
    data = mutable_data;
  }

  // As float32, after a look at the sizes; -1 stands for 1 or `batch`.
  const float* floats(std::initializer_list<int64_t> expected, int64_t batch = 0) const {
    if (type != ORT_FLOAT) throw Refusal(std::string(name) + " must be float32.");
    size_t i = 0;
    bool fits = true;
    for (int64_t size : expected) {
      fits &= size < 0 ? dimensions[i] == 1 || dimensions[i] == batch : dimensions[i] == size;
      ++i;
    }
    if (fits) return static_cast<const float*>(data);
    std::string wanted = text(expected.begin(), expected.size());
    if (*expected.begin() < 0)
      wanted.replace(1, 2, batch == 1 ? "1" : "1 or " + std::to_string(batch));
    throw Refusal(std::string(name) + " must have the shape " + wanted + "; got " +
                  text(dimensions.sizes, dimensions.count) + ".");
  }
};

// Null where the node leaves the output out.
void* output(OrtKernelContext* context, Output index, std::initializer_list<int64_t> sizes) {
  OrtValue* value = nullptr;
  check(ort().KernelContext_GetOutput(context, index, sizes.begin(), sizes.size(), &value));
  if (!value) return nullptr;
  void* data = nullptr;
  check(ort().GetTensorMutableData(value, &data));
  return data;
}

// ---- The kernel -------------------------------------------------------------------------------

// An attribute of the node, or `otherwise` where the node has none of that name.
template <class Value, class Getter>
Value attribute(Getter getter, const OrtKernelInfo* info, const char* name,
                const Value* otherwise) {
  Value value{};
  OrtStatus* status = getter(info, name, &value);
  if (!status) return value;
  const std::string message = ort().GetErrorMessage(status);
  ort().ReleaseStatus(status);
  if (otherwise && message.find("No attribute") != std::string::npos) return *otherwise;
  throw Refusal("the attribute " + std::string(name) + " is missing or of the wrong kind (" +
                message + ").");
}

// ONNX Runtime's threads, as the scan's loop. What a thread throws is thrown again by the caller.
void parallel_for(OrtKernelContext* context, int64_t n, const std::function<void(int64_t)>& body) {
  struct Loop {
    const std::function<void(int64_t)>& body;
    std::atomic<bool> failed{false};
  } loop{body};
  auto iteration = [](void* data, size_t i) noexcept {
    Loop& loop = *static_cast<Loop*>(data);
    try {
      if (!loop.failed) loop.body(int64_t(i));
    } catch (...) {
      loop.failed = true;
    }
  };
  if (n > 0)
    check(ort().KernelContext_ParallelFor(context, iteration, size_t(n), size_t(n), &loop));
  if (loop.failed) throw std::bad_alloc();  // the only thing that the scan throws
}

enum class Provider { cpu, cuda };

struct Kernel {
  Provider provider;
  int64_t head_dim, state_size;
  bool reverse;
  float epsilon;

  Kernel(Provider provider, const OrtKernelInfo* info) : provider(provider) {
    auto integer = [info](const char* name, const int64_t* otherwise = nullptr) {
      return attribute<int64_t>(ort().KernelInfoGetAttribute_int64, info, name, otherwise);
    };
    const int64_t forward = 0;
    const float usual = 1e-5f;
    head_dim = integer("head_dim");
    state_size = integer("state_size");
    const int64_t direction = integer("reverse", &forward);
    epsilon = attribute<float>(ort().KernelInfoGetAttribute_float, info, "epsilon", &usual);
    // Sizes beyond these would overflow products of them long before memory could hold the tensors.
    constexpr int64_t limit = 1 << 16;
    if (head_dim < 1 || head_dim > limit)
      throw Refusal("head_dim must be 1 to 65536; got " + std::to_string(head_dim) + ".");
    if (state_size < 1 || state_size > limit)
      throw Refusal("state_size must be 1 to 65536; got " + std::to_string(state_size) + ".");
    if (direction != 0 && direction != 1)
      throw Refusal("reverse must be 0 or 1; got " + std::to_string(direction) + ".");
    if (!(epsilon >= 0)) throw Refusal("epsilon must not be negative.");
    reverse = direction == 1;
  }

  void compute(OrtKernelContext* context) const {
    const Tensor projected(context, zxbcdt, 3), steps(context, A_log, 1);
    const Tensor taps(context, conv_weight, 3);
    Call call{};
    Shape& s = call.shape;
    s.heads = steps.dimensions[0], s.head_dim = head_dim, s.state = state_size;
    s.taps = taps.dimensions[2];
    call.batch = projected.dimensions[0], call.length = projected.dimensions[1];
    if (s.heads < 1) throw Refusal("A_log must have at least one head.");
    if (s.taps < 2 || s.taps > max_taps)
      throw Refusal("conv_weight must have 2 to 4 taps; got " + std::to_string(s.taps) + ".");
    if (projected.dimensions[2] != s.row())
      throw Refusal("zxbcdt must have 2 * heads * head_dim + 2 * state_size + heads = " +
                    std::to_string(s.row()) + " columns; got " +
                    std::to_string(projected.dimensions[2]) + ".");
    if (projected.type != ORT_FLOAT && projected.type != ORT_FLOAT16 &&
        (projected.type != ORT_BFLOAT16 || provider == Provider::cpu))
      throw Refusal(provider == Provider::cpu ? "zxbcdt must be float32 or float16."
                                              : "zxbcdt must be float32, float16 or bfloat16.");

    const int64_t B = call.batch;
    const Tensor before_conv(context, conv_state, 3), before_scan(context, ssm_state, 4);
    call.half = projected.type == ORT_FLOAT16;
    call.reverse = reverse;
    call.epsilon = epsilon;
    call.zxbcdt = projected.data;
    call.conv_weight = taps.floats({s.channels(), 1, s.taps});
    call.conv_bias = Tensor(context, conv_bias, 1).floats({s.channels()});
    call.dt_bias = Tensor(context, dt_bias, 1).floats({s.heads});
    call.A_log = steps.floats({s.heads});
    call.D = Tensor(context, D, 1).floats({s.heads});
    call.norm_weight = Tensor(context, norm_weight, 1).floats({s.inner()});
    call.conv_state = before_conv.floats({-1, s.channels(), s.taps - 1}, B);
    call.ssm_state = before_scan.floats({-1, s.heads, s.head_dim, s.state}, B);
    call.conv_state_is_shared = before_conv.dimensions[0] == 1;
    call.ssm_state_is_shared = before_scan.dimensions[0] == 1;
    call.y = output(context, y, {B, call.length, s.inner()});
    call.conv_state_out =
        static_cast<float*>(output(context, conv_state_out, {B, s.channels(), s.taps - 1}));
    call.ssm_state_out =
        static_cast<float*>(output(context, ssm_state_out, {B, s.heads, s.head_dim, s.state}));
    if (provider == Provider::cuda) return on_stream(context, call, projected.type);
    scan(call, isa(), [context](int64_t n, const std::function<void(int64_t)>& body) {
      parallel_for(context, n, body);
    });
  }

  // The tensors lie on the GPU: nothing here may look into them.
  static void on_stream(OrtKernelContext* context, const Call& call, int type) {
    const Shape& s = call.shape;
    if (s.taps != cuda::taps || !cuda::has_kernels(s.head_dim, s.state))
      throw Refusal("on CUDA there are kernels for 4 taps, head_dim 64 and state_size 64 or 128; "
                    "got " + std::to_string(s.taps) + ", " + std::to_string(s.head_dim) + " and " +
                    std::to_string(s.state) + ": export with --target ort.");
    const auto batch_of = [&](bool shared) { return int32_t(shared ? 1 : call.batch); };
    cuda::Call given{};
    given.batch = call.batch, given.length = call.length, given.heads = int32_t(s.heads);
    given.conv_batch = batch_of(call.conv_state_is_shared);
    given.ssm_batch = batch_of(call.ssm_state_is_shared);
    given.reverse = call.reverse, given.epsilon = call.epsilon, given.zxbcdt = call.zxbcdt;
    given.conv_weight = call.conv_weight, given.conv_bias = call.conv_bias;
    given.dt_bias = call.dt_bias, given.A_log = call.A_log, given.D = call.D;
    given.norm_weight = call.norm_weight;
    given.conv_state = call.conv_state, given.ssm_state = call.ssm_state;
    given.y = call.y;
    given.conv_state_out = call.conv_state_out, given.ssm_state_out = call.ssm_state_out;
    void* stream = nullptr;
    check(ort().KernelContext_GetGPUComputeStream(context, &stream));
    cuda::scan(given,
               type == ORT_FLOAT16    ? cuda::Kind::fp16
               : type == ORT_BFLOAT16 ? cuda::Kind::bf16
                                      : cuda::Kind::fp32,
               s.state, static_cast<cuda::Stream>(stream));
  }
};

// ---- The operator -----------------------------------------------------------------------------

// What is known of a tensor before anything runs; the names of unknown sizes let ONNX Runtime see
// which buffers can follow each other in the same memory.
struct Sketch {
  size_t rank = 0;
  int64_t sizes[4] = {};
  const char* names[4] = {"", "", "", ""};

  Sketch(const OrtShapeInferContext* context, Input input) {
    OrtTypeAndShape* info = nullptr;
    if (OrtStatus* unknown = ort().ShapeInferContext_GetInputTypeShape(context, input, &info)) {
      ort().ReleaseStatus(unknown);
      return;
    }
    size_t count = 0;
    check(ort().GetDimensionsCount(info, &count));
    if (count > 4) return;
    check(ort().GetDimensions(info, sizes, count));
    check(ort().GetSymbolicDimensions(info, names, count));
    // An unknown size without a name is -1, which ONNX Runtime would take back as a size.
    for (size_t i = 0; i < count; ++i)
      if (sizes[i] < 0 && !*names[i]) return;
    rank = count;
  }

  void set(const OrtShapeInferContext* context, Output index, int type) const {
    OrtTypeAndShape* info = nullptr;
    check(ort().CreateTensorTypeAndShapeInfo(&info));
    const std::unique_ptr<OrtTypeAndShape, void (*)(OrtTypeAndShape*)> owner(
        info, ort().ReleaseTensorTypeAndShapeInfo);
    check(ort().SetTensorElementType(info, type));
    check(ort().SetDimensions(info, sizes, rank));
    check(ort().SetSymbolicDimensions(info, const_cast<const char**>(names), rank));
    check(ort().ShapeInferContext_SetOutputTypeShape(context, index, info));
  }
};

template <Provider provider>
OrtCustomOp operator_table() {
  OrtCustomOp op{};
  op.version = ort_api_version;
  op.GetName = [](const OrtCustomOp*) { return "mamba2_scan"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) {
    return provider == Provider::cpu ? "CPUExecutionProvider" : "CUDAExecutionProvider";
  };
  // zxbcdt and y share a type that is looked at when the tensors come; all else is float32.
  op.GetInputTypeCount = [](const OrtCustomOp*) { return input_count; };
  op.GetInputType = [](const OrtCustomOp*, size_t i) -> int {
    return i == zxbcdt ? ORT_UNDEFINED : ORT_FLOAT;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return output_count; };
  op.GetOutputType = [](const OrtCustomOp*, size_t i) -> int {
    return i == y ? ORT_UNDEFINED : ORT_FLOAT;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return ORT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t i) -> int {
    return i == y ? ORT_REQUIRED : ORT_OPTIONAL;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) -> int { return ORT_MEMORY_DEFAULT; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                         void** kernel) {
    return guarded([=] { *kernel = new Kernel(provider, info); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return guarded([=] { static_cast<const Kernel*>(kernel)->compute(context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
    return guarded([=] {
      Sketch tokens(context, zxbcdt);
      const Sketch norm(context, norm_weight);
      if (tokens.rank != 3 || norm.rank != 1) return;
      tokens.sizes[2] = norm.sizes[0], tokens.names[2] = norm.names[0];
      OrtTypeAndShape* info = nullptr;
      int type = ORT_FLOAT;
      check(ort().ShapeInferContext_GetInputTypeShape(context, zxbcdt, &info));
      check(ort().GetTensorElementType(info, &type));
      tokens.set(context, y, type);
    });
  };
  return op;
}

}  // namespace
}  // namespace bsmamba2

// Called by SessionOptions.register_custom_ops_library.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace bsmamba2;
  static const OrtCustomOp on_cpu = operator_table<Provider::cpu>();
  static const OrtCustomOp on_cuda = operator_table<Provider::cuda>();
  const OrtApi* api = base->GetApi(ort_api_version);
  if (!api) {
    char sentence[160];
    std::snprintf(sentence, sizeof sentence,
                  "bsmamba2's kernels need ONNX Runtime 1.17 or newer; this is %s.",
                  base->GetVersionString());
    return create_status(base->GetApi(1), ORT_FAIL, sentence);
  }
  ort(api);
  return guarded([=] {
    isa();
    static const auto make = [](bool with_cuda) {  // lent to all sessions
      OrtCustomOpDomain* created = nullptr;
      check(ort().CreateCustomOpDomain("bsmamba2", &created));
      check(ort().CustomOpDomain_Add(created, &on_cpu));
      if (with_cuda) check(ort().CustomOpDomain_Add(created, &on_cuda));
      return created;
    };
    // The one for CUDA is there for whoever has said where its kernels lie.
    static OrtCustomOpDomain* const plain = make(false);
    static OrtCustomOpDomain* const both = make(true);
    check(ort().AddCustomOpDomain(options, cuda::kernels() ? both : plain));
  });
}
