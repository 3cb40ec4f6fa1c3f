// A stand-in for NVIDIA's driver (libcuda.so.1) and NVML: what ONNX Runtime, our kernels' launcher
// and the runtime ask it. Kernels compute nothing; launches are logged.
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

#include "log.h"

namespace {

int context, module_of_kernels;
std::set<std::string> kernel_names;

int allocate(void** memory, size_t bytes, const char* kind) {
  stand_in_log("allocate\t%s\t%zu", kind, bytes);
  return posix_memalign(memory, 512, bytes ? bytes : 1) ? 2 : 0;  // CUDA_ERROR_OUT_OF_MEMORY
}

}  // namespace

API int cuInit(unsigned) { return 0; }
API int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
API int cuDeviceGetCount(int* count) { *count = 1; return 0; }
API int cuDeviceGet(int* device, int index) { *device = index; return 0; }
API int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "stand-in", size);
  return 0;
}
API int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = size_t{80} << 30; return 0; }
API int cuDeviceGetAttribute(int* value, int attribute, int) {
  // Compute capability 9.0, and 228 KiB of shared memory per multiprocessor.
  *value = attribute == 75 ? 9 : attribute == 81 ? 228 << 10 : 0;
  return 0;
}
API int cuGetErrorString(int, const char** text) { *text = "error of the stand-in"; return 0; }
API int cuStreamGetCtx(void*, void** out) { *out = &context; return 0; }
API int cuCtxPushCurrent_v2(void*) { return 0; }
API int cuCtxPopCurrent_v2(void**) { return 0; }
API int cuCtxSetCurrent(void*) { return 0; }
API int cuCtxGetDevice(int* device) { *device = 0; return 0; }
API int cuDevicePrimaryCtxRetain(void** out, int) { *out = &context; return 0; }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuTensorMapEncodeTiled(...) { return 0; }

API int cuModuleLoadData(void** out, const void*) { *out = &module_of_kernels; return 0; }
API int cuModuleUnload(void*) { return 0; }
API int cuModuleGetFunction(void** out, void*, const char* name) {
  *out = const_cast<std::string*>(&*kernel_names.insert(name).first);
  return 0;
}
API int cuFuncSetAttribute(void*, int, int) { return 0; }
API int cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                       unsigned bz, unsigned shared_bytes, void*, void**, void**) {
  stand_in_log("launch\t%u,%u,%u\t%u,%u,%u\t%u\tbsmamba2::%s", gx, gy, gz, bx, by, bz, shared_bytes,
               static_cast<std::string*>(kernel)->c_str());
  return 0;
}

API int cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
  void* memory = nullptr;
  const int status = allocate(&memory, bytes, "device");
  *address = reinterpret_cast<unsigned long long>(memory);
  return status;
}
API int cuMemFree_v2(unsigned long long address) {
  stand_in_log("free\tdevice");
  std::free(reinterpret_cast<void*>(address));
  return 0;
}
API int cuMemAllocHost_v2(void** memory, size_t bytes) { return allocate(memory, bytes, "pinned"); }
API int cuMemFreeHost(void* memory) {
  stand_in_log("free\tpinned");
  std::free(memory);
  return 0;
}
API int cuMemGetInfo_v2(size_t* free, size_t* total) {
  *total = size_t{80} << 30;
  *free = size_t{79} << 30;
  return 0;
}
API int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void*) {
  stand_in_log("copy\tasync\t1\t%zu", bytes);
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
API int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) {
  stand_in_log("copy\tasync\t2\t%zu", bytes);
  std::memcpy(to, reinterpret_cast<void*>(from), bytes);
  return 0;
}
API int cuStreamCreate(void** stream, unsigned) {
  *stream = std::malloc(8);
  stand_in_log("stream\tcreate");
  return 0;
}
API int cuStreamDestroy_v2(void* stream) {
  stand_in_log("stream\tdestroy");
  std::free(stream);
  return 0;
}
API int cuStreamSynchronize(void*) { stand_in_log("wait\tstream"); return 0; }
API int cuStreamWaitEvent(void*, void*, unsigned) { return 0; }
API int cuEventCreate(void** event, unsigned) { *event = std::malloc(8); return 0; }
API int cuEventDestroy_v2(void* event) { std::free(event); return 0; }
API int cuEventRecord(void*, void*) { return 0; }

API int nvmlInit_v2() { return 0; }
API int nvmlShutdown() { return 0; }
API int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::strncpy(text, "580.00", size);
  return 0;
}
