#include "driver.h"

#include <dlfcn.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace bsmamba2::cuda {
namespace {

// The functions of the driver API that are called. The meaning of a versioned name never changes.
using Result = int;
using Context = struct CUctx_st*;
using Module = struct CUmod_st*;
using Function = struct CUfunc_st*;
using Device = int;
using Pointer = unsigned long long;

struct Driver {
  Result (*cuGetErrorString)(Result, const char**);
  Result (*cuStreamGetCtx)(Stream, Context*);
  Result (*cuCtxPushCurrent_v2)(Context);
  Result (*cuCtxPopCurrent_v2)(Context*);
  Result (*cuCtxGetDevice)(Device*);
  Result (*cuDeviceGetAttribute)(int*, int, Device);
  Result (*cuModuleLoadData)(Module*, const void*);
  Result (*cuModuleUnload)(Module);
  Result (*cuModuleGetFunction)(Function*, Module, const char*);
  Result (*cuFuncSetAttribute)(Function, int, int);
  Result (*cuMemAlloc_v2)(Pointer*, size_t);
  Result (*cuMemFree_v2)(Pointer);
  Result (*cuLaunchKernel)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                           unsigned, Stream, void**, void**);

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library)
      throw std::runtime_error(
          "there is no NVIDIA driver (libcuda.so.1): install one, or use the device cpu.");
#define FIND(name)                                                                     \
  name = reinterpret_cast<decltype(name)>(dlsym(library, #name));                      \
  if (!name) throw std::runtime_error("the NVIDIA driver has no " #name ": update it.")
    FIND(cuGetErrorString);
    FIND(cuStreamGetCtx);
    FIND(cuCtxPushCurrent_v2);
    FIND(cuCtxPopCurrent_v2);
    FIND(cuCtxGetDevice);
    FIND(cuDeviceGetAttribute);
    FIND(cuModuleLoadData);
    FIND(cuModuleUnload);
    FIND(cuModuleGetFunction);
    FIND(cuFuncSetAttribute);
    FIND(cuMemAlloc_v2);
    FIND(cuMemFree_v2);
    FIND(cuLaunchKernel);
#undef FIND
  }
};
constexpr int major_version = 75, minor_version = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
constexpr int shared_of_multiprocessor = 81;           // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_…
constexpr int dynamic_shared_bytes = 8;                // CU_FUNC_ATTRIBUTE_MAX_…_SIZE_BYTES
constexpr Result out_of_memory = 2;

const Driver& driver() {
  static const Driver opened;
  return opened;
}

void check(Result result, const char* action) {
  if (result == 0) return;
  const char* reason = nullptr;
  driver().cuGetErrorString(result, &reason);
  throw std::runtime_error(std::string(action) + " failed: " + (reason ? reason : "unknown error") +
                           (result == out_of_memory ? "; use smaller batches or chunks." : "."));
}

std::mutex mutex;  // guards the folder, the modules and the workspaces
std::string folder;
// The kernels loaded into one context. They stay loaded until the process ends.
class Kernels {
  Module module = nullptr;
  std::map<std::string, Function> functions;
  int shared = 0;

  bool load(const std::string& file) {
    std::ifstream stream(folder + "/" + file, std::ios::binary);
    if (!stream) return false;
    std::vector<char> image{std::istreambuf_iterator<char>(stream), {}};
    image.push_back(0);  // PTX is a string
    return driver().cuModuleLoadData(&module, image.data()) == 0;
  }

 public:
  // Loads machine code for this GPU or an earlier one of its generation, or else PTX. PTX for 9.0
  // is enough: every GPU of generation 8 or 9 can run one of the .cubin files.
  Kernels() {
    Device device = 0;
    int major = 0, minor = 0;
    check(driver().cuCtxGetDevice(&device), "querying the GPU");
    check(driver().cuDeviceGetAttribute(&major, major_version, device), "querying the GPU");
    check(driver().cuDeviceGetAttribute(&minor, minor_version, device), "querying the GPU");
    check(driver().cuDeviceGetAttribute(&shared, shared_of_multiprocessor, device),
          "querying the GPU");
    for (int m = minor; m >= 0; --m)
      if (load("sm_" + std::to_string(major * 10 + m) + ".cubin")) return;
    if (major >= 9 && load("compute_90.ptx")) return;
    const std::string name = std::to_string(major) + "." + std::to_string(minor);
    if (major < 8)
      throw std::runtime_error("the GPU must have compute capability 8.0 or higher; got " + name +
                               ": export with --target ort for it.");
    throw std::runtime_error("the NVIDIA driver could load none of the kernels in " + folder +
                             " for compute capability " + name + ": update the driver.");
  }

  // Shared memory of a multiprocessor, in bytes.
  int shared_bytes() const { return shared; }

  Function find(const std::string& name, int shared_bytes) {
    const auto cached = functions.find(name);
    if (cached != functions.end()) return cached->second;
    Function function = nullptr;
    check(driver().cuModuleGetFunction(&function, module, name.c_str()), name.c_str());
    if (shared_bytes)
      check(driver().cuFuncSetAttribute(function, dynamic_shared_bytes, shared_bytes),
            name.c_str());
    return functions[name] = function;
  }
};

// The workspace of one stream, for callers that bring none. The calls of a stream run one after
// another, so they can share it. Freeing the smaller one waits until the card has used it.
struct Workspace {
  Pointer data = 0;
  int64_t bytes = 0;

  void* at_least(int64_t needed) {
    if (needed > bytes) {
      release();
      check(driver().cuMemAlloc_v2(&data, size_t(needed)), "allocating the workspace");
      bytes = needed;
    }
    return reinterpret_cast<void*>(data);
  }

  void release() {
    if (bytes) driver().cuMemFree_v2(data);
    bytes = 0;
  }
};

std::map<std::pair<Context, Stream>, Workspace> workspaces;

struct InContext {
  Context context = nullptr;
  explicit InContext(Stream stream) {
    check(driver().cuStreamGetCtx(stream, &context), "querying the stream's context");
    check(driver().cuCtxPushCurrent_v2(context), "entering the stream's context");
  }
  ~InContext() {
    Context ignored;
    driver().cuCtxPopCurrent_v2(&ignored);
  }
  InContext(const InContext&) = delete;
  InContext& operator=(const InContext&) = delete;
};

}  // namespace

void set_kernels(const char* path) {
  const std::lock_guard<std::mutex> lock(mutex);
  folder = path;
}

namespace {

// Returns the kernels of the current context, loaded at its first call.
Kernels& kernels_of(Context context) {
  static std::map<Context, Kernels> modules;
  return modules[context];
}

// Returns the function that launches a kernel with `call` as its argument.
template <class Argument>
auto launcher(Kernels& loaded, Argument& call, Stream stream) {
  return [&loaded, &call, stream](const std::string& name, int64_t blocks, int threads,
                                  int shared) {
    void* arguments[] = {&call};
    check(driver().cuLaunchKernel(loaded.find(name, shared), unsigned(blocks), 1, 1,
                                  unsigned(threads), 1, 1, unsigned(shared), stream, arguments,
                                  nullptr),
          name.c_str());
  };
}

}  // namespace

void scan(Call call, Kind kind, int64_t N, Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  const InContext here(stream);
  Kernels& loaded = kernels_of(here.context);
  if (!call.workspace)
    call.workspace =
        workspaces[{here.context, stream}].at_least(workspace_bytes(call, kind, N));
  launch_scan(call, kind, N, loaded.shared_bytes(), launcher(loaded, call, stream));
}

void residual_norm(Residual call, Kind kind, Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  const InContext here(stream);
  launch_residual_norm(call, kind, launcher(kernels_of(here.context), call, stream));
}

void release(Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  const InContext here(stream);
  const auto found = workspaces.find({here.context, stream});
  if (found == workspaces.end()) return;
  found->second.release();
  workspaces.erase(found);
}

}  // namespace bsmamba2::cuda

// C functions for other hosts than ONNX Runtime. bsmamba2_cuda_kernels sets the folder of the
// kernels, also for the operator. bsmamba2_cuda_scan returns 0, or 1 after writing an error
// message. bsmamba2_cuda_release frees what scans on a stream kept; call it before the stream is
// destroyed.
extern "C" {
__attribute__((visibility("default"))) void bsmamba2_cuda_kernels(const char* folder) {
  bsmamba2::cuda::set_kernels(folder);
}

__attribute__((visibility("default"))) int bsmamba2_cuda_scan(const bsmamba2::cuda::Call* call,
                                                              int kind, int N, void* stream,
                                                              char* message, size_t bytes) {
  try {
    bsmamba2::cuda::scan(*call, bsmamba2::cuda::Kind(kind), N,
                         static_cast<bsmamba2::cuda::Stream>(stream));
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(message, bytes, "%s", error.what());
    return 1;
  }
}

__attribute__((visibility("default"))) void bsmamba2_cuda_release(void* stream) {
  try {
    bsmamba2::cuda::release(static_cast<bsmamba2::cuda::Stream>(stream));
  } catch (const std::exception&) {
    // Without its context the memory is gone already.
  }
}
}
