// What the operators have in common: the border to ONNX Runtime's C API, and the inputs and
// attributes of a scan.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "ort_api.h"
#include "scan.h"

namespace bsmamba2 {

// What does not fit is thrown as this and becomes an OrtStatus at the border to C.
struct Refusal : std::runtime_error {
  using runtime_error::runtime_error;
};

// Set once, by the first call, which registers the library and hands the API over.
const Ort& ort(const OrtApi* api = nullptr);

// Throws what a status says.
void check(OrtStatus* status);

// Runs what may throw and returns what ONNX Runtime understands.
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

// ONNX Runtime's threads, as the scan's loop. What a thread throws is thrown again by the caller.
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

  // As float32, after a look at the sizes; -1 stands for 1 or `batch`.
  const float* floats(std::initializer_list<int64_t> expected, int64_t batch = 0) const;
};

// Null where the node leaves the output out.
void* output(OrtKernelContext*, size_t index, std::initializer_list<int64_t> sizes);

// What is known of a tensor before anything runs; the names of unknown sizes let ONNX Runtime see
// which buffers can follow each other in the same memory.
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

// The inputs from conv_weight to ssm_state stand in this order in every operator.
constexpr size_t parameter_count = 8;

// The call with everything but zxbcdt and y; `first` is the place of conv_weight. The row of zxbcdt
// is the shape's, and `batch` and `length` are those of its tokens.
Call scan_call(OrtKernelContext*, const Attributes&, size_t first, int64_t batch, int64_t length);

// What the tables of both operators share; the first input and the first output are tokens, whose
// type is looked at when they come, and all else is float32.
OrtCustomOp operator_table();

const OrtCustomOp& scan_operator();
const OrtCustomOp& cuda_scan_operator();
const OrtCustomOp& mixer_operator();

}  // namespace bsmamba2
