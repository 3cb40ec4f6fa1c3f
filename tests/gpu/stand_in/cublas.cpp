// A stand-in for cuBLAS (libcublas.so.13): products are logged with their sizes and types.
#include <cstdlib>

#include "log.h"

namespace {

constexpr int float32 = 0;  // CUDA_R_32F

int product(int m, int n, int k, int batch, int type) {
  stand_in_log("product\t%d,%d,%d\t%d\t%d", m, n, k, batch, type);
  return 0;
}

}  // namespace

API int cublasCreate_v2(void** handle) {
  *handle = std::malloc(256);
  return 0;
}
API const char* cublasGetStatusName(int) { return "stand-in"; }
API const char* cublasGetStatusString(int) { return "stand-in"; }
API int cublasGemmEx(void*, int, int, int m, int n, int k, const void*, const void*, int type, int,
                     const void*, int, int, const void*, void*, int, int, int, int) {
  return product(m, n, k, 1, type);
}
API int cublasGemmStridedBatchedEx(void*, int, int, int m, int n, int k, const void*, const void*,
                                   int type, int, long long, const void*, int, int, long long,
                                   const void*, void*, int, int, long long, int batch, int, int) {
  return product(m, n, k, batch, type);
}
API int cublasGemmBatchedEx(void*, int, int, int m, int n, int k, const void*, const void*,
                            int type, int, const void*, int, int, const void*, void*, int, int,
                            int batch, int, int) {
  return product(m, n, k, batch, type);
}
API int cublasSgemm_v2(void*, int, int, int m, int n, int k, ...) {
  return product(m, n, k, 1, float32);
}
API int cublasSgemmStridedBatched(void*, int, int, int m, int n, int k, const float*, const float*,
                                  int, long long, const float*, int, long long, const float*,
                                  float*, int, long long, int batch) {
  return product(m, n, k, batch, float32);
}
API int cublasSgemmBatched(void*, int, int, int m, int n, int k, const float*, const void*, int,
                           const void*, int, const float*, void*, int, int batch) {
  return product(m, n, k, batch, float32);
}
