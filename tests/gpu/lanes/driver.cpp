// A mock of NVIDIA's driver: the functions of libcuda.so.1 that runtime/native/cuda/driver.cpp
// calls, with kernels that run lane by lane in host memory. FAKE_GPU sets the compute capability
// ("9.0"). Calls are logged to the file FAKE_GPU_LOG.
#include "scan.cpp"

#include <cstdio>
#include <cstdlib>

namespace {

void log(const std::string& line) {
  if (const char* path = std::getenv("FAKE_GPU_LOG")) {
    FILE* file = std::fopen(path, "a");
    std::fprintf(file, "%s\n", line.c_str());
    std::fclose(file);
  }
}
int capability(int part) {
  int numbers[2] = {9, 0};
  if (const char* text = std::getenv("FAKE_GPU"))
    std::sscanf(text, "%d.%d", &numbers[0], &numbers[1]);
  return numbers[part];
}
int shared_of_multiprocessor() {  // CUDA C++ Programming Guide, technical specifications
  const int major = capability(0), minor = capability(1);
  const bool is_server = major == 8 ? minor == 0 : major < 12;
  return (is_server ? major == 8 ? 164 : 228 : 100) << 10;
}
std::map<std::string, int> shared_bytes;
int context, module;

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cuGetErrorString(int, const char** text) { *text = "error of the mock driver"; return 0; }
API cuStreamGetCtx(void*, void** out) { *out = &context; return 0; }
API cuCtxPushCurrent_v2(void*) { return 0; }
API cuCtxPopCurrent_v2(void**) { return 0; }
API cuCtxGetDevice(int* device) { *device = 0; return 0; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 81 ? shared_of_multiprocessor() : capability(attribute - 75);
  return 0;
}
API cuModuleLoadData(void** out, const void* image) {
  const std::string text(static_cast<const char*>(image), 4);
  const bool machine_code = text == "\x7f" "ELF";
  log(machine_code ? "load machine code" : "load PTX");
  *out = &module;
  return std::getenv("FAKE_GPU_OLD") ? 222 : 0;  // unsupported PTX version
}
API cuModuleUnload(void*) { return 0; }
API cuModuleGetFunction(void** out, void*, const char* name) {
  const auto scan = kernels.find(name);
  const auto residual = residual_kernels.find(name);
  if (scan != kernels.end()) *out = const_cast<std::string*>(&scan->first);
  else if (residual != residual_kernels.end()) *out = const_cast<std::string*>(&residual->first);
  else return 500;
  return 0;
}
API cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute == 8) shared_bytes[*static_cast<std::string*>(function)] = value;
  return 0;
}
API cuMemAlloc_v2(unsigned long long* out, size_t bytes) {
  log("allocate " + std::to_string(bytes));
  void* memory = nullptr;
  if (std::getenv("FAKE_GPU_FULL") || posix_memalign(&memory, 256, bytes)) return 2;
  *out = reinterpret_cast<unsigned long long>(memory);
  return 0;
}
API cuMemFree_v2(unsigned long long memory) {
  log("free");
  std::free(reinterpret_cast<void*>(memory));
  return 0;
}
API cuLaunchKernel(void* function, unsigned x, unsigned, unsigned, unsigned threads, unsigned,
                   unsigned, unsigned shared, void*, void** arguments, void**) {
  const std::string& name = *static_cast<std::string*>(function);
  log("launch " + name);
  if (shared != unsigned(shared_bytes[name])) return 1;
  const bool is_scan = kernels.count(name);
  for (unsigned i = 0; i < x; ++i)
    Block(i, int(threads), shared)
        .run(
            [&] {
              if (is_scan) kernels.at(name)(*static_cast<const Call*>(arguments[0]));
              else residual_kernels.at(name)(*static_cast<const Residual*>(arguments[0]));
            },
            false);
  return 0;
}

// The functions that bsmamba2.devices.cuda_memory calls. Memory of the card is host memory.
API cuInit(unsigned) { return 0; }
API cuDeviceGet(int* device, int index) { *device = index; return 0; }
API cuDevicePrimaryCtxRetain(void** out, int) { *out = &context; return 0; }
API cuCtxSetCurrent(void*) { return 0; }
API cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API cuStreamCreate(void** out, unsigned) { *out = &module; return 0; }
API cuStreamDestroy_v2(void*) { return 0; }
API cuEventCreate(void** out, unsigned) { *out = &module; return 0; }
API cuEventDestroy_v2(void*) { return 0; }
API cuEventRecord(void*, void*) { return 0; }
API cuStreamWaitEvent(void*, void*, unsigned) { return 0; }
API cuStreamSynchronize(void*) { return 0; }
API cuMemGetInfo_v2(size_t* free, size_t* whole) {
  static size_t left = size_t(80) << 30;  // one gigabyte less at each call
  *free = left -= 1000000000, *whole = size_t(80) << 30;
  return 0;
}
API cuMemAllocHost_v2(void** out, size_t bytes) { return posix_memalign(out, 256, bytes) ? 2 : 0; }
API cuMemFreeHost(void* memory) { std::free(memory); return 0; }
API cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void*) {
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return 0;
}
API cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) {
  std::memcpy(to, reinterpret_cast<void*>(from), bytes);
  return 0;
}
