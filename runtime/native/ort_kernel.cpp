#include "ort_kernel.h"

#include <atomic>

namespace bsmamba2 {

const Ort& ort(const OrtApi* api) {
  static const Ort table(api);
  return table;
}

void check(OrtStatus* status) {
  if (!status) return;
  const std::string message = ort().GetErrorMessage(status);
  ort().ReleaseStatus(status);
  throw std::runtime_error(message);
}

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
  if (loop.failed) throw std::bad_alloc();  // the only exception that the scan throws
}

// ---- Tensors ----------------------------------------------------------------------------------

namespace {

using ShapeInfo = std::unique_ptr<OrtTypeAndShape, void (*)(OrtTypeAndShape*)>;

ShapeInfo owned(OrtTypeAndShape* raw) { return {raw, ort().ReleaseTensorTypeAndShapeInfo}; }

std::string text(const int64_t* sizes, size_t count) {
  std::string joined = "(";
  for (size_t i = 0; i < count; ++i) joined += (i ? ", " : "") + std::to_string(sizes[i]);
  return joined + ")";
}

}  // namespace

namespace {

const OrtValue* input_value(OrtKernelContext* context, size_t input) {
  const OrtValue* value = nullptr;
  check(ort().KernelContext_GetInput(context, input, &value));
  return value;
}

}  // namespace

Tensor::Tensor(OrtKernelContext* context, size_t input, const char* name, size_t rank)
    : Tensor(input_value(context, input), name, rank) {}

Tensor::Tensor(const OrtValue* value, const char* name, size_t rank) : name(name), value(value) {
  if (!value) throw Refusal(std::string(name) + " is missing: all inputs are required.");
  OrtTypeAndShape* raw = nullptr;
  check(ort().GetTensorTypeAndShape(value, &raw));
  const ShapeInfo owner = owned(raw);
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

const float* Tensor::floats(std::initializer_list<int64_t> expected, int64_t batch) const {
  if (type != ORT_FLOAT) throw Refusal(std::string(name) + " must be float32.");
  size_t i = 0;
  bool fits = true;
  for (int64_t size : expected) {
    fits &= size < 0 ? dimensions[i] == 1 || dimensions[i] == batch : dimensions[i] == size;
    ++i;
  }
  if (fits) return static_cast<const float*>(data);
  std::string shape = text(expected.begin(), expected.size());
  if (*expected.begin() < 0)
    shape.replace(1, 2, batch == 1 ? "1" : "1 or " + std::to_string(batch));
  throw Refusal(std::string(name) + " must have the shape " + shape + "; got " +
                text(dimensions.sizes, dimensions.count) + ".");
}

void* output(OrtKernelContext* context, size_t index, std::initializer_list<int64_t> sizes) {
  OrtValue* value = nullptr;
  check(ort().KernelContext_GetOutput(context, index, sizes.begin(), sizes.size(), &value));
  if (!value) return nullptr;
  void* data = nullptr;
  check(ort().GetTensorMutableData(value, &data));
  return data;
}

Sketch::Sketch(const OrtShapeInferContext* context, size_t input) {
  OrtTypeAndShape* info = nullptr;
  if (OrtStatus* unknown = ort().ShapeInferContext_GetInputTypeShape(context, input, &info)) {
    ort().ReleaseStatus(unknown);
    return;
  }
  size_t count = 0;
  check(ort().GetTensorElementType(info, &type));
  check(ort().GetDimensionsCount(info, &count));
  if (count > 4) return;
  check(ort().GetDimensions(info, sizes, count));
  check(ort().GetSymbolicDimensions(info, names, count));
  // An unknown size without a name is -1, which ONNX Runtime would take for a size if it were set.
  for (size_t i = 0; i < count; ++i)
    if (sizes[i] < 0 && !*names[i]) return;
  rank = count;
}

void Sketch::set(const OrtShapeInferContext* context, size_t index) const {
  OrtTypeAndShape* info = nullptr;
  check(ort().CreateTensorTypeAndShapeInfo(&info));
  const ShapeInfo owner = owned(info);
  check(ort().SetTensorElementType(info, type));
  check(ort().SetDimensions(info, sizes, rank));
  check(ort().SetSymbolicDimensions(info, const_cast<const char**>(names), rank));
  check(ort().ShapeInferContext_SetOutputTypeShape(context, index, info));
}

// ---- A scan -----------------------------------------------------------------------------------

namespace {

// Reads an attribute of the node. Returns *fallback if the node does not have it.
template <class Value, class Getter>
Value attribute(Getter getter, const OrtKernelInfo* info, const char* name,
                const Value* fallback) {
  Value value{};
  OrtStatus* status = getter(info, name, &value);
  if (!status) return value;
  const std::string message = ort().GetErrorMessage(status);
  ort().ReleaseStatus(status);
  if (fallback && message.find("No attribute") != std::string::npos) return *fallback;
  throw Refusal("the attribute " + std::string(name) + " is missing or has the wrong type (" +
                message + ").");
}

}  // namespace

Attributes::Attributes(const OrtKernelInfo* info) {
  auto integer = [info](const char* name, const int64_t* fallback = nullptr) {
    return attribute<int64_t>(ort().KernelInfoGetAttribute_int64, info, name, fallback);
  };
  const int64_t forward = 0;
  const float default_epsilon = 1e-5f;
  head_dim = integer("head_dim");
  state_size = integer("state_size");
  const int64_t direction = integer("reverse", &forward);
  epsilon = attribute<float>(ort().KernelInfoGetAttribute_float, info, "epsilon", &default_epsilon);
  // Products of larger sizes could overflow, for tensors that no memory can hold.
  constexpr int64_t limit = 1 << 16;
  if (head_dim < 1 || head_dim > limit)
    throw Refusal("head_dim must be 1 to 65536; got " + std::to_string(head_dim) + ".");
  if (state_size < 1 || state_size > limit)
    throw Refusal("state_size must be 1 to 65536; got " + std::to_string(state_size) + ".");
  if (direction != 0 && direction != 1)
    throw Refusal("reverse must be 0 or 1; got " + std::to_string(direction) + ".");
  if (!(epsilon >= 0))
    throw Refusal("epsilon must be 0 or more; got " + std::to_string(epsilon) + ".");
  reverse = direction == 1;
}

Call scan_call(OrtKernelContext* context, const Attributes& attributes, size_t first,
               int64_t batch, int64_t length) {
  const Tensor taps(context, first, "conv_weight", 3), steps(context, first + 3, "A_log", 1);
  const Tensor conv_state(context, first + 6, "conv_state", 3);
  const Tensor ssm_state(context, first + 7, "ssm_state", 4);
  Call call{};
  Shape& s = call.shape;
  s.heads = steps.dimensions[0], s.head_dim = attributes.head_dim, s.state = attributes.state_size;
  s.taps = taps.dimensions[2];
  if (s.heads < 1) throw Refusal("A_log must have at least one head.");
  if (s.taps < 2 || s.taps > max_taps)
    throw Refusal("conv_weight must have 2 to 4 taps; got " + std::to_string(s.taps) + ".");
  call.batch = batch, call.length = length;
  call.reverse = attributes.reverse, call.epsilon = attributes.epsilon;
  call.conv_weight = taps.floats({s.channels(), 1, s.taps});
  call.conv_bias = Tensor(context, first + 1, "conv_bias", 1).floats({s.channels()});
  call.dt_bias = Tensor(context, first + 2, "dt_bias", 1).floats({s.heads});
  call.A_log = steps.floats({s.heads});
  call.D = Tensor(context, first + 4, "D", 1).floats({s.heads});
  call.norm_weight = Tensor(context, first + 5, "norm_weight", 1).floats({s.inner()});
  call.conv_state = conv_state.floats({-1, s.channels(), s.taps - 1}, batch);
  call.ssm_state = ssm_state.floats({-1, s.heads, s.head_dim, s.state}, batch);
  call.conv_state_is_shared = conv_state.dimensions[0] == 1;
  call.ssm_state_is_shared = ssm_state.dimensions[0] == 1;
  return call;
}

OrtCustomOp operator_table() {
  OrtCustomOp op{};
  op.version = ort_api_version;
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputType = [](const OrtCustomOp*, size_t i) -> int {
    return i == 0 ? ORT_UNDEFINED : ORT_FLOAT;
  };
  op.GetOutputType = op.GetInputType;
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return ORT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t i) -> int {
    return i == 0 ? ORT_REQUIRED : ORT_OPTIONAL;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) -> int { return ORT_MEMORY_DEFAULT; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
  return op;
}

}  // namespace bsmamba2
