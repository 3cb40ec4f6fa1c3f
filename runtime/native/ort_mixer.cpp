// The operator bsmamba2::mamba2_mixer for ONNX Runtime's CPU provider: in_proj, the scan and
// out_proj, for a few sequences at a time.
//
// Between the projections a token is nine times as wide as in the mixer's input and output (at the
// paper's size 2320 + 1024 columns instead of 256). For 8 s of audio that is 660 MB, written once
// and read once. A tile of a few sequences stays in the caches from its first use to its last.
// Sequences are independent, so tiling does not change a bit of the result.
//
// Weights that are constants of the model are packed for the products of cpu/product.h when the
// model is loaded. Where this machine has none of them, or a weight is not a constant, ONNX Runtime's
// kernel multiplies in float32.
#include <algorithm>
#include <memory>
#include <vector>

#include "ort_kernel.h"
#include "pool.h"

namespace bsmamba2 {
namespace {

enum Input {
  tokens, in_weight, conv_weight, norm_weight = conv_weight + 5,
  out_weight = conv_weight + parameter_count
};
enum Output { result };
constexpr const char* name = "mamba2_mixer";

// The approximate number of tokens in a tile, enough for a product to reach its full speed. A tile
// always consists of whole sequences.
constexpr int64_t tile_tokens = 2048;

Pool tiles;

using Value = std::unique_ptr<OrtValue, void (*)(OrtValue*)>;

Value matrix(const OrtMemoryInfo* memory, const float* data, int64_t rows, int64_t columns) {
  const int64_t sizes[] = {rows, columns};
  OrtValue* value = nullptr;
  check(ort().CreateTensorWithDataAsOrtValue(memory, const_cast<float*>(data),
                                             size_t(rows * columns) * 4, sizes, 2, ORT_FLOAT,
                                             &value));
  return {value, ort().ReleaseValue};
}

// Computes a · wᵀ with ONNX Runtime's kernel.
class Product {
  template <class T>
  using Owned = std::unique_ptr<T, void (*)(T*)>;

  Owned<OrtOp> op{nullptr, ort().ReleaseOp};
  Owned<OrtMemoryInfo> memory{nullptr, ort().ReleaseMemoryInfo};

 public:
  explicit Product(const OrtKernelInfo* info) {
    // An operator created without a node has no default attributes.
    const int64_t no = 0, yes = 1;
    const float one = 1;
    const struct { const char* name; const void* value; int type; } values[] = {
        {"transA", &no, ORT_OP_ATTR_INT}, {"transB", &yes, ORT_OP_ATTR_INT},
        {"alpha", &one, ORT_OP_ATTR_FLOAT}, {"beta", &one, ORT_OP_ATTR_FLOAT}};
    std::vector<Owned<OrtOpAttr>> owners;
    std::vector<const OrtOpAttr*> attributes;
    for (const auto& entry : values) {
      OrtOpAttr* attribute = nullptr;
      check(ort().CreateOpAttr(entry.name, entry.value, 1, entry.type, &attribute));
      owners.emplace_back(attribute, ort().ReleaseOpAttr);
      attributes.push_back(attribute);
    }
    const char* constraints[] = {"T"};
    const int types[] = {ORT_FLOAT};
    OrtOp* created = nullptr;
    check(ort().CreateOp(info, "Gemm", "", 13, constraints, types, 1, attributes.data(),
                         int(attributes.size()), 2, 1, &created));
    op.reset(created);
    OrtMemoryInfo* cpu = nullptr;
    check(ort().CreateCpuMemoryInfo(ORT_ARENA_ALLOCATOR, ORT_MEMORY_DEFAULT, &cpu));
    memory.reset(cpu);
  }

  // a is (rows, width), w is (columns, width), out is (rows, columns).
  void operator()(const OrtKernelContext* context, const float* a, const Tensor& w, int64_t rows,
                  float* out) const {
    const Value left = matrix(memory.get(), a, rows, w.dimensions[1]);
    const Value product = matrix(memory.get(), out, rows, w.dimensions[0]);
    const OrtValue* inputs[] = {left.get(), w.value};
    OrtValue* outputs[] = {product.get()};
    check(ort().InvokeOp(context, op.get(), inputs, 2, outputs, 1));
  }
};

// A product with one of the mixer's weights.
class Projection {
  const Product& in_float32;
  const TileProducts* tiles = nullptr;
  std::shared_ptr<const PackedWeights> packed;

 public:
  Projection(const OrtKernelInfo* info, Speed speed, size_t input, const char* name,
             const Product& in_float32)
      : in_float32(in_float32) {
    const ProductChoice& choice = products_of(speed);
    int is_constant = 0;
    const OrtValue* value = nullptr;
    if (choice.tiles) check(ort().KernelInfoGetConstantInput_tensor(info, input, &is_constant, &value));
    if (!is_constant || !value) return;
    const Tensor weights(value, name, 2);
    const int64_t columns = weights.dimensions[0], width = weights.dimensions[1];
    packed = pack(choice.kind, weights.floats({columns, width}), columns, width);
    tiles = choice.tiles;
  }

  void operator()(OrtKernelContext* context, const float* a, const Tensor& w, int64_t rows,
                  float* out) const {
    if (!packed) return in_float32(context, a, w, rows, out);
    multiply(*tiles, *packed, a, rows, out,
             [context](int64_t n, const std::function<void(int64_t)>& body) {
               parallel_for(context, n, body);
             });
  }
};

struct Kernel {
  Attributes attributes;
  Product product;
  Projection in_proj, out_proj;

  Kernel(const OrtKernelInfo* info, Speed speed)
      : attributes(info),
        product(info),
        in_proj(info, speed, in_weight, "in_weight", product),
        out_proj(info, speed, out_weight, "out_weight", product) {}
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  void compute(OrtKernelContext* context) const {
    const Tensor u(context, tokens, "u", 3);
    const int64_t B = u.dimensions[0], L = u.dimensions[1], width = u.dimensions[2];
    const Call whole = scan_call(context, attributes, conv_weight, B, L);
    const Shape& s = whole.shape;
    const Tensor in(context, in_weight, "in_weight", 2), out(context, out_weight, "out_weight", 2);
    if (width < 1) throw Refusal("u must have at least one column.");
    if (out.dimensions[0] < 1) throw Refusal("out_weight must have at least one row.");
    in.floats({s.row(), width});
    out.floats({out.dimensions[0], s.inner()});
    const float* from = u.floats({B, L, width});
    float* to = static_cast<float*>(output(context, result, {B, L, out.dimensions[0]}));
    if (B == 0 || L == 0) return;

    const int64_t tile = std::min(B, std::max<int64_t>(1, tile_tokens / L));
    const Pool::Loan projected(tiles, size_t(tile * L * s.row()));
    const Pool::Loan mixed(tiles, size_t(tile * L * s.inner()));
    for (int64_t b = 0; b < B; b += tile) {
      Call call = whole;
      call.batch = std::min(tile, B - b);
      call.zxbcdt = projected.data();
      call.y = mixed.data();
      if (!call.conv_state_is_shared) call.conv_state += b * s.channels() * (s.taps - 1);
      if (!call.ssm_state_is_shared) call.ssm_state += b * s.inner() * s.state;
      in_proj(context, from + b * L * width, in, call.batch * L, projected.data());
      scan(call, isa(), [context](int64_t n, const std::function<void(int64_t)>& body) {
        parallel_for(context, n, body);
      });
      out_proj(context, mixed.data(), out, call.batch * L, to + b * L * out.dimensions[0]);
    }
  }
};

template <Speed speed>
const OrtCustomOp& operator_at() {
  static const OrtCustomOp op = [] {
    OrtCustomOp table = operator_table();
    table.GetName = [](const OrtCustomOp*) { return name; };
    table.GetInputTypeCount = [](const OrtCustomOp*) { return 3 + parameter_count; };
    table.GetInputType = [](const OrtCustomOp*, size_t) -> int { return ORT_FLOAT; };
    table.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t(1); };
    table.GetOutputType = table.GetInputType;
    table.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                              void** kernel) {
      return guarded(name, [=] { *kernel = new Kernel(info, speed); });
    };
    table.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded(name, [=] { static_cast<const Kernel*>(kernel)->compute(context); });
    };
    table.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    table.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
      return guarded(name, [=] {
        Sketch tokens_out(context, tokens);
        const Sketch weight(context, out_weight);
        if (tokens_out.rank != 3 || weight.rank != 2) return;
        tokens_out.sizes[2] = weight.sizes[0], tokens_out.names[2] = weight.names[0];
        tokens_out.set(context, result);
      });
    };
    return table;
  }();
  return op;
}

}  // namespace

const OrtCustomOp& mixer_operator(Speed speed) {
  return speed == Speed::fast ? operator_at<Speed::fast>() : operator_at<Speed::exact>();
}

}  // namespace bsmamba2
