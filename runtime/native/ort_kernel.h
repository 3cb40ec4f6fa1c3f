// Code shared by the operators: calls to ONNX Runtime's C API, and the inputs and attributes of a
// scan.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "cpu/product.h"
#include "ort_api.h"
#include "scan.h"

namespace bsmamba2 {

// Thrown for an invalid input or attribute. `guarded` turns it into an OrtStatus.
struct Refusal : std::runtime_error {
  using runtime_error::runtime_error;
};

// The functions of ONNX Runtime. The first call, from RegisterCustomOps, sets the API.
const Ort& ort(const OrtApi* api = nullptr);

// Throws the message of a status, if there is one, and releases it.
void check(OrtStatus* status);

// Runs `body` and turns its exceptions into a status.
template <class Body>
OrtStatus* guarded(const char* name, Body body) noexcept {
  try {
    try {
      body();
      return nullptr;
    } catch (const Refusal& refusal) {
      return ort().CreateStatus(ORT_INVALID_ARGUMENT,
                                (std::string(name) + ": " + refusal.what()).c_str());
    }
  } catch (const std::bad_alloc&) {
    return ort().CreateStatus(ORT_FAIL, "bsmamba2: not enough memory for the workspace.");
  } catch (const std::exception& error) {
    return ort().CreateStatus(ORT_FAIL, (std::string(name) + ": " + error.what()).c_str());
  }
}

// Runs body(0) … body(n - 1) on ONNX Runtime's threads. Throws if a thread threw.
void parallel_for(OrtKernelContext*, int64_t n, const std::function<void(int64_t)>& body);

// ---- Tensors ----------------------------------------------------------------------------------

struct Dimensions {
  size_t count = 0;
  int64_t sizes[4] = {};
  int64_t operator[](size_t i) const { return sizes[i]; }
};

struct Tensor {
  const char* name;
  const OrtValue* value = nullptr;
  Dimensions dimensions;
  int type = ORT_UNDEFINED;
  const void* data = nullptr;

  Tensor(OrtKernelContext*, size_t input, const char* name, size_t rank);
  Tensor(const OrtValue*, const char* name, size_t rank);

  // Checks type and sizes and returns the data. An expected size of -1 means 1 or `batch`.
  const float* floats(std::initializer_list<int64_t> expected, int64_t batch = 0) const;
};

// Allocates an output and returns its data, or null if the node omits the output.
void* output(OrtKernelContext*, size_t index, std::initializer_list<int64_t> sizes);

// Memory of the session, on the device where the kernel runs; it is freed with the session.
class Memory {
  OrtAllocator* allocator = nullptr;

 public:
  explicit Memory(const OrtKernelInfo* info) {
    check(ort().KernelInfoGetAllocator(info, 0, &allocator));  // 0: the device's own memory
  }
  ~Memory() { ort().ReleaseAllocator(allocator); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Memory that others may use after it goes out of scope. Throws std::bad_alloc.
  struct Block {
    const Memory& memory;
    void* const data;

    Block(const Memory& memory, int64_t bytes)
        : memory(memory), data(memory.allocator->Alloc(memory.allocator, size_t(bytes))) {
      if (!data && bytes) throw std::bad_alloc();
    }
    ~Block() { memory.allocator->Free(memory.allocator, data); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
  };
};

// The type and shape of a tensor at load time. Unknown sizes have names, from which ONNX Runtime
// infers which buffers have equal sizes and can share memory.
struct Sketch {
  size_t rank = 0;
  int type = ORT_FLOAT;
  int64_t sizes[4] = {};
  const char* names[4] = {"", "", "", ""};

  Sketch(const OrtShapeInferContext*, size_t input);
  void set(const OrtShapeInferContext*, size_t output) const;
};

// ---- A scan -----------------------------------------------------------------------------------

struct Attributes {
  int64_t head_dim, state_size;
  bool reverse;
  float epsilon;

  explicit Attributes(const OrtKernelInfo*);
};

// The number of inputs from conv_weight to ssm_state. Their order is the same in every operator.
constexpr size_t parameter_count = 8;

// Returns the call without zxbcdt and y. `first` is the index of the input conv_weight; `batch` and
// `length` are the sizes of the tokens.
Call scan_call(OrtKernelContext*, const Attributes&, size_t first, int64_t batch, int64_t length);

// The table entries that all operators share. The first input and output are tokens, whose type is
// checked at run time; everything else is float32.
OrtCustomOp operator_table();

const OrtCustomOp& scan_operator();
const OrtCustomOp& cuda_scan_operator();
const OrtCustomOp& mixer_operator(Speed);
// On CUDA, for one type of tokens: ORT_FLOAT, ORT_FLOAT16 or ORT_BFLOAT16.
template <int type>
const OrtCustomOp& residual_norm_operator();

}  // namespace bsmamba2
