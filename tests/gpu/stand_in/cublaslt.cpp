// A stand-in for cuBLASLt (libcublasLt.so.13): products are logged with the sizes of their output.
#include <cstdlib>
#include <cstring>

#include "log.h"

namespace {

struct Layout {
  int type;
  unsigned long long rows, columns;
  int batch;
};
constexpr int batch_count = 5;  // CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT

}  // namespace

API int cublasLtCreate(void** handle) {
  *handle = std::malloc(256);
  return 0;
}
API int cublasLtMatmulDescCreate(void** descriptor, int, int) {
  *descriptor = std::malloc(256);
  return 0;
}
API int cublasLtMatmulPreferenceCreate(void** preference) {
  *preference = std::malloc(256);
  return 0;
}
API int cublasLtMatrixTransformDescCreate(void** descriptor, int) {
  *descriptor = std::malloc(256);
  return 0;
}
API int cublasLtMatrixLayoutCreate(Layout** layout, int type, unsigned long long rows,
                                   unsigned long long columns, long long) {
  *layout = new Layout{type, rows, columns, 1};
  return 0;
}
API int cublasLtMatrixLayoutDestroy(Layout* layout) {
  delete layout;
  return 0;
}
API int cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value, size_t) {
  if (attribute == batch_count) std::memcpy(&layout->batch, value, sizeof layout->batch);
  return 0;
}
API int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int,
                                       void* results, int* found) {
  std::memset(results, 0, 96);  // a cublasLtMatmulHeuristicResult_t
  *found = 1;
  return 0;
}
API int cublasLtMatmul(void*, void*, const void*, const void*, Layout* a, const void*, Layout* b,
                       const void*, const void*, Layout*, void*, Layout* d, const void*, void*,
                       size_t, void*) {
  const unsigned long long inner = a->rows == d->rows ? a->columns : a->rows;
  (void)b;
  stand_in_log("product\t%llu,%llu,%llu\t%d\t%d", d->rows, d->columns, inner, d->batch, a->type);
  return 0;
}
