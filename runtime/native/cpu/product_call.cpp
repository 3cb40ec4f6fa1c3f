// A product as a plain C function, so that tests can call those of each instruction set.
#include <exception>

#include "cpu/product.h"
#include "threads.h"

using namespace bsmamba2;

#define EXPORT extern "C" __attribute__((visibility("default")))

// Returns the name of a set of product_sets(); null after the last one.
EXPORT const char* bsmamba2_product_set(int set) {
  const auto& sets = product_sets();
  return set >= 0 && size_t(set) < sets.size() ? sets[size_t(set)]->name : nullptr;
}

// out (rows, columns) = a (rows, width) · weights (columns, width)ᵀ with one set's products. `kind`
// is 0 for bf16x3, 1 for bf16, 2 for int8. Returns 1 if the set does not have the kind or the
// weights cannot be packed, and 2 if the call failed.
EXPORT int bsmamba2_product(int set, int kind, const float* a, const float* weights, int64_t rows,
                            int64_t columns, int64_t width, float* out, int threads) {
  try {
    const TileProducts& tiles = *product_sets().at(size_t(set));
    if (!multiply_of(tiles, ProductKind(kind))) return 1;
    const auto packed = pack(ProductKind(kind), weights, columns, width);
    if (!packed) return 1;
    multiply(tiles, *packed, a, rows, out, on_threads(threads));
    return 0;
  } catch (const std::exception&) {
    return 2;
  }
}
