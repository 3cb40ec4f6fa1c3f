// The operator bsmamba2::mamba2_scan for ONNX Runtime's CPU and CUDA providers.
#include "cuda/driver.h"
#include "ort_kernel.h"

namespace bsmamba2 {
namespace {

enum Input { zxbcdt, conv_weight, norm_weight = conv_weight + 5 };
enum Output { y, conv_state_out, ssm_state_out };
constexpr const char* name = "mamba2_scan";

// The types of tokens that a provider's kernels take, and the call of these kernels.
struct OnCpu {
  static constexpr const char* provider = "CPUExecutionProvider";
  static constexpr const char* types = "float32 or float16";

  explicit OnCpu(const OrtKernelInfo*) {}

  static bool accepts(int type) { return type == ORT_FLOAT || type == ORT_FLOAT16; }
  static void run(const Call& call, int, OrtKernelContext* context) {
    scan(call, isa(), [context](int64_t n, const std::function<void(int64_t)>& body) {
      parallel_for(context, n, body);
    });
  }
};

// The tensors are in GPU memory, so nothing here reads them.
struct OnCuda {
  static constexpr const char* provider = "CUDAExecutionProvider";
  static constexpr const char* types = "float32, float16 or bfloat16";

  Memory memory;

  explicit OnCuda(const OrtKernelInfo* info) : memory(info) {}

  static bool accepts(int type) { return OnCpu::accepts(type) || type == ORT_BFLOAT16; }
  void run(const Call& call, int type, OrtKernelContext* context) const {
    const Shape& s = call.shape;
    if (s.taps != cuda::taps || !cuda::has_kernels(s.head_dim, s.state))
      throw Refusal("on CUDA conv_weight must have 4 taps, head_dim must be 64 and state_size 64 "
                    "or 128; got " + std::to_string(s.taps) + ", " + std::to_string(s.head_dim) +
                    " and " + std::to_string(s.state) + ": export with --target ort.");
    cuda::Call on_gpu{};
    on_gpu.batch = call.batch, on_gpu.length = call.length, on_gpu.heads = int32_t(s.heads);
    on_gpu.conv_batch = call.conv_state_is_shared ? 1 : int32_t(call.batch);
    on_gpu.ssm_batch = call.ssm_state_is_shared ? 1 : int32_t(call.batch);
    on_gpu.reverse = call.reverse, on_gpu.dt_columns = int32_t(s.heads + call.row - s.row()), on_gpu.epsilon = call.epsilon, on_gpu.zxbcdt = call.zxbcdt;
    on_gpu.conv_weight = call.conv_weight, on_gpu.conv_bias = call.conv_bias;
    on_gpu.dt_bias = call.dt_bias, on_gpu.A_log = call.A_log, on_gpu.D = call.D;
    on_gpu.norm_weight = call.norm_weight;
    on_gpu.conv_state = call.conv_state, on_gpu.ssm_state = call.ssm_state;
    on_gpu.y = call.y;
    on_gpu.conv_state_out = call.conv_state_out, on_gpu.ssm_state_out = call.ssm_state_out;
    const cuda::Kind kind = type == ORT_FLOAT16    ? cuda::Kind::fp16
                            : type == ORT_BFLOAT16 ? cuda::Kind::bf16
                                                   : cuda::Kind::fp32;
    void* stream = nullptr;
    check(ort().KernelContext_GetGPUComputeStream(context, &stream));
    // All work of a session is on one stream, so the next user of this memory runs after the scan.
    const Memory::Block workspace(memory, cuda::workspace_bytes(on_gpu, kind, s.state));
    on_gpu.workspace = workspace.data;
    cuda::scan(on_gpu, kind, s.state, static_cast<cuda::Stream>(stream));
  }
};

template <class Where>
struct Kernel {
  Attributes attributes;
  Where where;

  explicit Kernel(const OrtKernelInfo* info) : attributes(info), where(info) {}
};

template <class Where>
void compute(const Kernel<Where>& kernel, OrtKernelContext* context) {
  const Tensor projected(context, zxbcdt, "zxbcdt", 3);
  const int64_t B = projected.dimensions[0], L = projected.dimensions[1];
  Call call = scan_call(context, kernel.attributes, conv_weight, B, L);
  const Shape& s = call.shape;
  // Columns of padding let every row start at a multiple of 16 bytes.
  const int64_t columns = projected.dimensions[2];
  if (columns < s.row() || columns >= s.row() + 8)
    throw Refusal("zxbcdt must have 2 * heads * head_dim + 2 * state_size + heads = " +
                  std::to_string(s.row()) + " columns; got " +
                  std::to_string(columns) + ".");
  if (!Where::accepts(projected.type))
    throw Refusal(std::string("zxbcdt must be ") + Where::types + ".");
  call.half = projected.type == ORT_FLOAT16, call.row = columns;
  call.zxbcdt = projected.data;
  call.y = output(context, y, {B, L, s.inner()});
  call.conv_state_out =
      static_cast<float*>(output(context, conv_state_out, {B, s.channels(), s.taps - 1}));
  call.ssm_state_out =
      static_cast<float*>(output(context, ssm_state_out, {B, s.heads, s.head_dim, s.state}));
  kernel.where.run(call, projected.type, context);
}

template <class Where>
const OrtCustomOp& operator_on() {
  static const OrtCustomOp op = [] {
    OrtCustomOp table = operator_table();
    table.GetExecutionProviderType = [](const OrtCustomOp*) { return Where::provider; };
    table.GetName = [](const OrtCustomOp*) { return name; };
    table.GetInputTypeCount = [](const OrtCustomOp*) { return 1 + parameter_count; };
    table.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t(3); };
    table.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                              void** kernel) {
      return guarded(name, [=] { *kernel = new Kernel<Where>(info); });
    };
    table.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded(
          name, [=] { compute(*static_cast<const Kernel<Where>*>(kernel), context); });
    };
    table.KernelDestroy = [](void* kernel) { delete static_cast<Kernel<Where>*>(kernel); };
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

}  // namespace

const OrtCustomOp& scan_operator() { return operator_on<OnCpu>(); }
const OrtCustomOp& cuda_scan_operator() { return operator_on<OnCuda>(); }

}  // namespace bsmamba2
