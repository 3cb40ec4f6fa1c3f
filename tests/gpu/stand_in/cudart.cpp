// A stand-in for the CUDA runtime (libcudart.so.13). Memory of the card is memory of the host, and
// copies copy. Kernels compute nothing: a launch is only logged, with its grid and its name. What
// CUDA forbids during the capture of a graph is logged as "illegal".
#include <cuda_runtime_api.h>
#include <cxxabi.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "log.h"

namespace {

constexpr size_t total_memory = size_t{80} << 30;
constexpr size_t alignment = 512;

std::mutex mutex;
bool capturing = false;

// Copies from the host that a graph repeats: the host must not have changed the source since.
struct CapturedCopy {
  const void* source;
  std::string content;
};
std::vector<CapturedCopy> captured_copies;

std::map<const void*, std::string>& kernel_names() {
  static std::map<const void*, std::string> names;  // filled by constructors of other libraries
  return names;
}

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  void* stream;
};
thread_local Configuration configuration;

void forbid_in_capture(const char* name) {
  if (capturing) stand_in_log("illegal\t%s", name);
}

cudaError_t allocate(void** memory, size_t bytes, const char* kind) {
  stand_in_log("allocate\t%s\t%zu", kind, bytes);
  const int failed = posix_memalign(memory, alignment, bytes ? bytes : 1);
  return failed ? cudaErrorMemoryAllocation : cudaSuccess;
}

void launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes) {
  const auto found = kernel_names().find(kernel);
  const std::string mangled = found == kernel_names().end() ? "unknown" : found->second;
  int status = 0;
  char* name = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  stand_in_log("launch\t%u,%u,%u\t%u,%u,%u\t%zu\t%s", grid.x, grid.y, grid.z, block.x, block.y,
               block.z, shared_bytes, name ? name : mangled.c_str());
  std::free(name);
  const bool fits = grid.x && grid.y && grid.z && grid.y <= 65535 && grid.z <= 65535 &&
                    block.x * block.y * block.z && block.x * block.y * block.z <= 1024;
  if (!fits) stand_in_log("illegal\tlaunch");
}

cudaDeviceProp properties() {
  cudaDeviceProp card{};
  std::strcpy(card.name, "stand-in");
  card.totalGlobalMem = total_memory;
  card.sharedMemPerBlock = 48 << 10;
  card.sharedMemPerBlockOptin = 227 << 10;
  card.sharedMemPerMultiprocessor = 228 << 10;
  card.regsPerBlock = card.regsPerMultiprocessor = 65536;
  card.warpSize = 32;
  card.maxThreadsPerBlock = card.maxThreadsDim[0] = card.maxThreadsDim[1] = 1024;
  card.maxThreadsDim[2] = 64;
  card.maxThreadsPerMultiProcessor = 2048;
  card.maxGridSize[0] = 2147483647;
  card.maxGridSize[1] = card.maxGridSize[2] = 65535;
  card.major = 9;
  card.multiProcessorCount = 132;
  card.l2CacheSize = 50 << 20;
  card.unifiedAddressing = card.memoryPoolsSupported = card.cooperativeLaunch = 1;
  card.textureAlignment = alignment;
  return card;
}

}  // namespace

API void stand_in_log(const char* format, ...) {
  static const char* const path = std::getenv("STAND_IN_LOG");
  if (!path) return;
  static FILE* const file = std::fopen(path, "a");
  const std::lock_guard<std::mutex> lock(mutex);
  if (capturing) std::fputs("captured\t", file);
  va_list values;
  va_start(values, format);
  std::vfprintf(file, format, values);
  va_end(values);
  std::fputc('\n', file);
  std::fflush(file);
}

// What nvcc's host code calls to register and launch kernels.
API void** __cudaRegisterFatBinary(void*) { return static_cast<void**>(std::malloc(8)); }
API void __cudaRegisterFatBinaryEnd(void**) {}
API void __cudaUnregisterFatBinary(void** handle) { std::free(handle); }
API void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*,
                                void*, void*, void*, int*) {
  kernel_names()[host] = name;
}
API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t bytes, void* stream) {
  configuration = {grid, block, bytes, stream};
  return 0;
}
API int __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* bytes, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *bytes = configuration.shared_bytes;
  *static_cast<void**>(stream) = configuration.stream;
  return 0;
}
API int __cudaGetKernel(void** kernel, const void* host) {
  *kernel = const_cast<void*>(host);
  return 0;
}
API int __cudaLaunchKernel(void* kernel, dim3 grid, dim3 block, void**, size_t bytes, void*) {
  launch(kernel, grid, block, bytes);
  return 0;
}
API cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t bytes,
                                 cudaStream_t) {
  launch(kernel, grid, block, bytes);
  return cudaSuccess;
}
API cudaError_t cudaLaunchCooperativeKernel(const void* kernel, dim3 grid, dim3 block, void**,
                                            size_t bytes, cudaStream_t) {
  launch(kernel, grid, block, bytes);
  return cudaSuccess;
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  launch(kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes);
  return cudaSuccess;
}

// The card.
API cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
API cudaError_t cudaGetDevice(int* index) { *index = 0; return cudaSuccess; }
API cudaError_t cudaSetDevice(int) { return cudaSuccess; }
API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* card, int) {
  *card = properties();
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const cudaDeviceProp card = properties();
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = card.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = card.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = card.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = int(card.sharedMemPerBlock); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(card.sharedMemPerBlockOptin); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = int(card.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxThreadsPerBlock: *value = card.maxThreadsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = card.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = card.regsPerBlock; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = card.regsPerMultiprocessor; break;
    case cudaDevAttrWarpSize: *value = card.warpSize; break;
    case cudaDevAttrMemoryPoolsSupported: *value = card.memoryPoolsSupported; break;
    case cudaDevAttrMaxGridDimX: *value = card.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = card.maxGridSize[1]; break;
    case cudaDevAttrL2CacheSize: *value = card.l2CacheSize; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = total_memory;
  *free = total_memory - (size_t{1} << 30);
  return cudaSuccess;
}
API cudaError_t cudaDriverGetVersion(int* version) { *version = 13000; return cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* version) { *version = 13000; return cudaSuccess; }
API const char* cudaGetErrorString(cudaError_t) { return "error of the stand-in"; }
API const char* cudaGetErrorName(cudaError_t) { return "stand-in"; }
API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->binaryVersion = attributes->ptxVersion = 90;
  return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int,
                                                                       size_t, unsigned) {
  *blocks = 2;
  return cudaSuccess;
}
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  *attributes = {};
  attributes->type = cudaMemoryTypeDevice;
  attributes->devicePointer = const_cast<void*>(pointer);
  return cudaSuccess;
}

// Memory.
API cudaError_t cudaMalloc(void** memory, size_t bytes) {
  forbid_in_capture("cudaMalloc");
  return allocate(memory, bytes, "device");
}
API cudaError_t cudaFree(void* memory) {
  if (memory) stand_in_log("free\tdevice");
  std::free(memory);
  return cudaSuccess;
}
API cudaError_t cudaMallocFromPoolAsync(void** memory, size_t bytes, cudaMemPool_t, cudaStream_t) {
  return allocate(memory, bytes, "pool");
}
API cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  std::free(memory);
  return cudaSuccess;
}
API cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  forbid_in_capture("cudaMallocHost");
  return allocate(memory, bytes, "pinned");
}
API cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  forbid_in_capture("cudaHostAlloc");
  return allocate(memory, bytes, "pinned");
}
API cudaError_t cudaFreeHost(void* memory) {
  if (memory) stand_in_log("free\tpinned");
  std::free(memory);
  return cudaSuccess;
}
API cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  *pool = static_cast<cudaMemPool_t>(std::malloc(8));
  return cudaSuccess;
}
API cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  forbid_in_capture("cudaMemcpy");
  stand_in_log("copy\tsync\t%d\t%zu", int(kind), bytes);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                cudaStream_t) {
  stand_in_log("copy\tasync\t%d\t%zu", int(kind), bytes);
  if (capturing && kind == cudaMemcpyHostToDevice)
    captured_copies.push_back({from, std::string(static_cast<const char*>(from), bytes)});
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
API cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                                  size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t) {
  stand_in_log("copy\tasync\t%d\t%zu", int(kind), width * height);
  for (size_t row = 0; row < height; ++row)
    std::memcpy(static_cast<char*>(to) + row * to_pitch,
                static_cast<const char*>(from) + row * from_pitch, width);
  return cudaSuccess;
}
API cudaError_t cudaMemcpyFromSymbol(void*, const void*, size_t, size_t, cudaMemcpyKind) {
  return cudaSuccess;
}
API cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  forbid_in_capture("cudaMemset");
  stand_in_log("memset\t%zu", bytes);
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
API cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  stand_in_log("memset\t%zu", bytes);
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

// Streams, events and graphs.
API cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = static_cast<cudaStream_t>(std::malloc(64));
  stand_in_log("stream\tcreate");
  return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreate(stream);
}
API cudaError_t cudaStreamDestroy(cudaStream_t) {
  stand_in_log("stream\tdestroy");
  return cudaSuccess;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t) {
  forbid_in_capture("cudaStreamSynchronize");
  stand_in_log("wait\tstream");
  return cudaSuccess;
}
API cudaError_t cudaDeviceSynchronize() {
  forbid_in_capture("cudaDeviceSynchronize");
  stand_in_log("wait\tdevice");
  return cudaSuccess;
}
API cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode mode) {
  stand_in_log("capture\tbegin\t%d", int(mode));
  captured_copies.clear();
  capturing = true;
  return cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  capturing = false;
  *graph = static_cast<cudaGraph_t>(std::malloc(8));
  stand_in_log("capture\tend");
  return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* graph, cudaGraph_t, unsigned long long) {
  *graph = static_cast<cudaGraphExec_t>(std::malloc(8));
  return cudaSuccess;
}
API cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  stand_in_log("replay");
  for (const CapturedCopy& copy : captured_copies)
    if (std::memcmp(copy.source, copy.content.data(), copy.content.size()))
      stand_in_log("illegal\tthe host changed %zu bytes that the graph copies",
                   copy.content.size());
  return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = static_cast<cudaEvent_t>(std::malloc(8));
  return cudaSuccess;
}
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaEventCreate(event);
}
API cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}
