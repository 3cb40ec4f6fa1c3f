// The operator bsmamba2::mamba2_scan for ONNX Runtime's CPU provider.
#include "ort_kernel.h"

namespace bsmamba2 {
namespace {

enum Input { zxbcdt, conv_weight, norm_weight = conv_weight + 5 };
enum Output { y, conv_state_out, ssm_state_out };
constexpr const char* name = "mamba2_scan";

void compute(const Attributes& attributes, OrtKernelContext* context) {
  const Tensor projected(context, zxbcdt, "zxbcdt", 3);
  const int64_t B = projected.dimensions[0], L = projected.dimensions[1];
  Call call = scan_call(context, attributes, conv_weight, B, L);
  const Shape& s = call.shape;
  if (projected.dimensions[2] != s.row())
    throw Refusal("zxbcdt must have 2 * heads * head_dim + 2 * state_size + heads = " +
                  std::to_string(s.row()) + " columns; got " +
                  std::to_string(projected.dimensions[2]) + ".");
  if (projected.type != ORT_FLOAT && projected.type != ORT_FLOAT16)
    throw Refusal("zxbcdt must be float32 or float16.");
  call.half = projected.type == ORT_FLOAT16;
  call.zxbcdt = projected.data;
  call.y = output(context, y, {B, L, s.inner()});
  call.conv_state_out =
      static_cast<float*>(output(context, conv_state_out, {B, s.channels(), s.taps - 1}));
  call.ssm_state_out =
      static_cast<float*>(output(context, ssm_state_out, {B, s.heads, s.head_dim, s.state}));
  scan(call, isa(), [context](int64_t n, const std::function<void(int64_t)>& body) {
    parallel_for(context, n, body);
  });
}

}  // namespace

const OrtCustomOp& scan_operator() {
  static const OrtCustomOp op = [] {
    OrtCustomOp table = operator_table();
    table.GetName = [](const OrtCustomOp*) { return name; };
    table.GetInputTypeCount = [](const OrtCustomOp*) { return 1 + parameter_count; };
    table.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t(3); };
    table.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                              void** kernel) {
      return guarded(name, [=] { *kernel = new Attributes(info); });
    };
    table.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded(name, [=] { compute(*static_cast<const Attributes*>(kernel), context); });
    };
    table.KernelDestroy = [](void* kernel) { delete static_cast<Attributes*>(kernel); };
    table.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
      return guarded(name, [=] {
        Sketch tokens(context, zxbcdt);
        const Sketch norm(context, norm_weight);
        if (tokens.rank != 3 || norm.rank != 1) return;
        tokens.sizes[2] = norm.sizes[0], tokens.names[2] = norm.names[0];
        tokens.set(context, y);
      });
    };
    return table;
  }();
  return op;
}

}  // namespace bsmamba2
