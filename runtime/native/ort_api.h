// The part of ONNX Runtime's C API that a custom operator needs, declared here because no package
// ships the header. OrtApi is a table of functions to which new versions only append, so the index
// of a function never changes.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtValue;
struct OrtTypeAndShape;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtMemoryInfo;
struct OrtOp;
struct OrtOpAttr;
struct OrtApi;

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };
enum { ORT_UNDEFINED = 0, ORT_FLOAT = 1, ORT_FLOAT16 = 10, ORT_BFLOAT16 = 16 };
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 };
enum { ORT_MEMORY_DEFAULT = 0, ORT_ARENA_ALLOCATOR = 1 };
enum { ORT_OP_ATTR_INT = 1, ORT_OP_ATTR_FLOAT = 3 };

// The first version with KernelInfoGetAllocator.
constexpr uint32_t ort_api_version = 18;

struct OrtAllocator {  // its first functions
  uint32_t version;
  void* (*Alloc)(OrtAllocator*, size_t bytes);
  void (*Free)(OrtAllocator*, void*);
};

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};

template <class Function>
Function* ort_function(const OrtApi* api, size_t index) {
  return reinterpret_cast<Function*>(reinterpret_cast<void* const*>(api)[index]);
}

// For a table from an older ONNX Runtime, which may lack later functions.
inline OrtStatus* create_status(const OrtApi* api, int code, const char* message) {
  return ort_function<OrtStatus*(int, const char*)>(api, 0)(code, message);
}

// The functions that are called, each with its index in OrtApi.
class Ort {
  const OrtApi* api;

 public:
  explicit Ort(const OrtApi* api) : api(api) {}

#define ORT_FUNCTION(index, result, name, parameters) \
  result(*name) parameters = ort_function<result parameters>(api, index)

  ORT_FUNCTION(0, OrtStatus*, CreateStatus, (int code, const char* message));
  ORT_FUNCTION(2, const char*, GetErrorMessage, (const OrtStatus*));
  ORT_FUNCTION(26, OrtStatus*, CreateCustomOpDomain, (const char*, OrtCustomOpDomain**));
  ORT_FUNCTION(27, OrtStatus*, CustomOpDomain_Add, (OrtCustomOpDomain*, const OrtCustomOp*));
  ORT_FUNCTION(28, OrtStatus*, AddCustomOpDomain, (OrtSessionOptions*, OrtCustomOpDomain*));
  ORT_FUNCTION(49, OrtStatus*, CreateTensorWithDataAsOrtValue,
               (const OrtMemoryInfo*, void*, size_t bytes, const int64_t*, size_t, int type,
                OrtValue**));
  ORT_FUNCTION(51, OrtStatus*, GetTensorMutableData, (OrtValue*, void**));
  ORT_FUNCTION(57, OrtStatus*, CreateTensorTypeAndShapeInfo, (OrtTypeAndShape**));
  ORT_FUNCTION(58, OrtStatus*, SetTensorElementType, (OrtTypeAndShape*, int));
  ORT_FUNCTION(59, OrtStatus*, SetDimensions, (OrtTypeAndShape*, const int64_t*, size_t));
  ORT_FUNCTION(60, OrtStatus*, GetTensorElementType, (const OrtTypeAndShape*, int*));
  ORT_FUNCTION(61, OrtStatus*, GetDimensionsCount, (const OrtTypeAndShape*, size_t*));
  ORT_FUNCTION(62, OrtStatus*, GetDimensions, (const OrtTypeAndShape*, int64_t*, size_t));
  ORT_FUNCTION(63, OrtStatus*, GetSymbolicDimensions,
               (const OrtTypeAndShape*, const char**, size_t));
  ORT_FUNCTION(65, OrtStatus*, GetTensorTypeAndShape, (const OrtValue*, OrtTypeAndShape**));
  ORT_FUNCTION(69, OrtStatus*, CreateCpuMemoryInfo, (int allocator, int kind, OrtMemoryInfo**));
  ORT_FUNCTION(85, OrtStatus*, KernelInfoGetAttribute_float,
               (const OrtKernelInfo*, const char*, float*));
  ORT_FUNCTION(86, OrtStatus*, KernelInfoGetAttribute_int64,
               (const OrtKernelInfo*, const char*, int64_t*));
  ORT_FUNCTION(90, OrtStatus*, KernelContext_GetInput,
               (const OrtKernelContext*, size_t, const OrtValue**));
  ORT_FUNCTION(91, OrtStatus*, KernelContext_GetOutput,
               (OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**));
  ORT_FUNCTION(93, void, ReleaseStatus, (OrtStatus*));
  ORT_FUNCTION(94, void, ReleaseMemoryInfo, (OrtMemoryInfo*));
  ORT_FUNCTION(96, void, ReleaseValue, (OrtValue*));
  ORT_FUNCTION(99, void, ReleaseTensorTypeAndShapeInfo, (OrtTypeAndShape*));
  ORT_FUNCTION(132, void, ReleaseAllocator, (OrtAllocator*));
  ORT_FUNCTION(193, OrtStatus*, KernelContext_GetGPUComputeStream,
               (const OrtKernelContext*, void**));
  ORT_FUNCTION(211, OrtStatus*, CreateOpAttr,
               (const char*, const void*, int count, int type, OrtOpAttr**));
  ORT_FUNCTION(212, void, ReleaseOpAttr, (OrtOpAttr*));
  ORT_FUNCTION(213, OrtStatus*, CreateOp,
               (const OrtKernelInfo*, const char* name, const char* domain, int version,
                const char** constraints, const int* types, int constraint_count,
                const OrtOpAttr* const*, int attribute_count, int input_count, int output_count,
                OrtOp**));
  ORT_FUNCTION(214, OrtStatus*, InvokeOp,
               (const OrtKernelContext*, const OrtOp*, const OrtValue* const* inputs, int count,
                OrtValue* const* outputs, int output_count));
  ORT_FUNCTION(215, void, ReleaseOp, (OrtOp*));
  ORT_FUNCTION(237, OrtStatus*, HasSessionConfigEntry,
               (const OrtSessionOptions*, const char* key, int* found));
  ORT_FUNCTION(238, OrtStatus*, GetSessionConfigEntry,
               (const OrtSessionOptions*, const char* key, char* value, size_t* bytes));
  ORT_FUNCTION(249, OrtStatus*, KernelInfoGetConstantInput_tensor,
               (const OrtKernelInfo*, size_t, int* is_constant, const OrtValue**));
  ORT_FUNCTION(268, OrtStatus*, ShapeInferContext_GetInputTypeShape,
               (const OrtShapeInferContext*, size_t, OrtTypeAndShape**));
  ORT_FUNCTION(270, OrtStatus*, ShapeInferContext_SetOutputTypeShape,
               (const OrtShapeInferContext*, size_t, const OrtTypeAndShape*));
  ORT_FUNCTION(271, OrtStatus*, SetSymbolicDimensions, (OrtTypeAndShape*, const char**, size_t));
  ORT_FUNCTION(274, OrtStatus*, KernelContext_ParallelFor,
               (const OrtKernelContext*, void (*)(void*, size_t), size_t total, size_t batches,
                void*));
  ORT_FUNCTION(278, OrtStatus*, KernelInfoGetAllocator,
               (const OrtKernelInfo*, int memory, OrtAllocator**));
#undef ORT_FUNCTION
};
