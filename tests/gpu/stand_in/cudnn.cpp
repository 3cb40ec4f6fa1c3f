// A stand-in for cuDNN (libcudnn.so.9), which the provider opens when a reduction or convolution
// needs it.
#include <cstddef>
#include <cstdlib>

#include "log.h"

namespace {

int create(void** descriptor) {
  *descriptor = std::malloc(512);
  return 0;
}
int workspace(size_t* bytes) {
  *bytes = 1024;
  return 0;
}

}  // namespace

API size_t cudnnGetVersion() { return 91300; }
API const char* cudnnGetErrorString(int) { return "error of the stand-in"; }
API const char* cudnnGetLastErrorString(char*, size_t) { return "error of the stand-in"; }
API int cudnnCreate(void** handle) { return create(handle); }
API int cudnnCreateActivationDescriptor(void** descriptor) { return create(descriptor); }
API int cudnnCreateConvolutionDescriptor(void** descriptor) { return create(descriptor); }
API int cudnnCreateFilterDescriptor(void** descriptor) { return create(descriptor); }
API int cudnnCreateReduceTensorDescriptor(void** descriptor) { return create(descriptor); }
API int cudnnCreateTensorDescriptor(void** descriptor) { return create(descriptor); }
API int cudnnGetReductionIndicesSize(void*, void*, void*, void*, size_t* bytes) {
  return workspace(bytes);
}
API int cudnnGetReductionWorkspaceSize(void*, void*, void*, void*, size_t* bytes) {
  return workspace(bytes);
}
API int cudnnReduceTensor(...) {
  stand_in_log("reduce\tcudnn");
  return 0;
}
