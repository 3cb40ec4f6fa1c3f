// The operator bsmamba2::residual_norm for ONNX Runtime's CUDA provider. ONNX Runtime infers the
// type of an output only from a single input of any type, so each type has an operator of its own.
#include "cuda/driver.h"
#include "ort_kernel.h"

namespace bsmamba2 {
namespace {

enum Input { x, forwards, backwards, scaled, bias, input_count };
enum Output { joined, unit };
constexpr const char* name = "residual_norm";

struct Kernel {
  float epsilon, next_epsilon;

  explicit Kernel(const OrtKernelInfo* info) {
    check(ort().KernelInfoGetAttribute_float(info, "epsilon", &epsilon));
    check(ort().KernelInfoGetAttribute_float(info, "next_epsilon", &next_epsilon));
  }
};

template <int type>
constexpr cuda::Kind kind_of = type == ORT_FLOAT16    ? cuda::Kind::fp16
                               : type == ORT_BFLOAT16 ? cuda::Kind::bf16
                                                      : cuda::Kind::fp32;

void compute(const Kernel& kernel, cuda::Kind kind, OrtKernelContext* context) {
  const Tensor stream_of_tokens(context, x, "x", 4);
  const Dimensions& d = stream_of_tokens.dimensions;
  cuda::Residual call{};
  call.batch = d[0], call.m = d[1], call.n = d[2], call.features = int32_t(d[3]);
  if (d[3] % 8 || d[3] < 8 || d[3] > cuda::residual_most_features)
    throw Refusal("x must have a multiple of 8 features, at most " +
                  std::to_string(cuda::residual_most_features) + ", on CUDA; got " +
                  std::to_string(d[3]) + ": export with --target ort.");
  call.epsilon = kernel.epsilon, call.next_epsilon = kernel.next_epsilon;
  call.x = stream_of_tokens.floats({d[0], d[1], d[2], d[3]});
  const void** tokens[] = {&call.forwards, &call.backwards, &call.scaled};
  const char* names[] = {"forwards", "backwards", "scaled"};
  for (int i = 0; i < 3; ++i) {
    const Tensor added(context, size_t(forwards + i), names[i], 4);
    for (size_t axis = 0; axis < 4; ++axis)
      if (added.dimensions[axis] != d[axis])
        throw Refusal(std::string(names[i]) + " must have the shape of x.");
    *tokens[i] = added.data;
  }
  call.bias = Tensor(context, bias, "bias", 1).floats({d[3]});
  call.joined = static_cast<float*>(output(context, joined, {d[0], d[2], d[1], d[3]}));
  call.unit = output(context, unit, {d[0], d[2], d[1], d[3]});
  void* stream = nullptr;
  check(ort().KernelContext_GetGPUComputeStream(context, &stream));
  cuda::residual_norm(call, kind, static_cast<cuda::Stream>(stream));
}

bool is_narrow_input(size_t i) { return i == forwards || i == backwards || i == scaled; }

}  // namespace

template <int type>
const OrtCustomOp& residual_norm_operator() {
  static const OrtCustomOp op = [] {
    OrtCustomOp table = operator_table();
    table.GetExecutionProviderType = [](const OrtCustomOp*) { return "CUDAExecutionProvider"; };
    table.GetName = [](const OrtCustomOp*) { return name; };
    table.GetInputTypeCount = [](const OrtCustomOp*) { return size_t(input_count); };
    table.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t(2); };
    table.GetInputType = [](const OrtCustomOp*, size_t i) -> int {
      return is_narrow_input(i) ? type : ORT_FLOAT;
    };
    table.GetOutputType = [](const OrtCustomOp*, size_t i) -> int {
      return i == unit ? type : ORT_FLOAT;
    };
    table.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return ORT_REQUIRED; };
    table.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                              void** kernel) {
      return guarded(name, [=] { *kernel = new Kernel(info); });
    };
    table.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded(
          name, [=] { compute(*static_cast<const Kernel*>(kernel), kind_of<type>, context); });
    };
    table.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    table.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
      return guarded(name, [=] {
        const Sketch tokens(context, forwards);
        Sketch shape(context, x);
        if (shape.rank != 4) return;
        std::swap(shape.sizes[1], shape.sizes[2]);
        std::swap(shape.names[1], shape.names[2]);
        shape.set(context, joined);
        shape.type = tokens.type;
        shape.set(context, unit);
      });
    };
    return table;
  }();
  return op;
}

template const OrtCustomOp& residual_norm_operator<ORT_FLOAT>();
template const OrtCustomOp& residual_norm_operator<ORT_FLOAT16>();
template const OrtCustomOp& residual_norm_operator<ORT_BFLOAT16>();

}  // namespace bsmamba2
