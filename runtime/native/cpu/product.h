// Products with constant weights, narrower than float32: the weights are packed once, and one loop
// multiplies with the tiles of any instruction set (tiles.h).
//
// One product of random values has 107 dB with bf16x3, 53 dB with bf16 and 39 dB with int8.
//
// A sum runs over its steps in order, whatever rows and columns are next to it. So the bits depend
// neither on the number of threads nor on how the rows are split. They depend on the instruction
// set, because each rounds its sums in its own order; int8 has the same bits everywhere.
//
// AMX and AVX512-BF16 take denormal values for zero, and int8 takes a row or column below 1e-35 for
// zero. A row that is not finite gives what float32 gives: NaN if it has a NaN, else the sum of its
// infinite terms. Finite values are never rounded to infinity, but sums overflow as in float32.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cpu/tiles.h"
#include "scan.h"

namespace bsmamba2 {

// Weights (columns, width), packed.
class PackedWeights {
 public:
  const ProductKind kind;
  const int64_t columns, width;

  // Throws std::bad_alloc.
  PackedWeights(ProductKind, const float* weights, int64_t columns, int64_t width);

  int64_t steps() const;
  int64_t column_tiles() const { return (columns + tile_columns - 1) / tile_columns; }
  // Bytes from one tile of columns, or of rows, to the next.
  int64_t stride() const;
  const uint8_t* tiles() const { return data.get(); }
  const float* scales() const { return column_scales.data(); }     // only for int8, see TileCall
  const int32_t* offsets() const { return column_offsets.data(); }
  // The weight as it is stored.
  float value(int64_t column, int64_t k) const;

 private:
  std::unique_ptr<uint8_t, void (*)(void*)> data;
  std::vector<float> column_scales;
  std::vector<int32_t> column_offsets;
};

// Packs weights, or returns them if the same array is packed already: the sessions of one model
// share them. Returns null for weights that only float32 can multiply: a weight is not finite, or a
// sum of so many int8 products could overflow.
std::shared_ptr<const PackedWeights> pack(ProductKind, const float* weights, int64_t columns,
                                          int64_t width);

// out (rows, columns) = a (rows, width) · weightsᵀ. Throws std::bad_alloc.
void multiply(const TileProducts&, const PackedWeights&, const float* a, int64_t rows, float* out,
              const Parallel&);

// ---- The choice of the products ---------------------------------------------------------------

enum class Speed { exact, fast };

// Returns the speed of that name; "" is exact. Throws for any other.
Speed speed_of(const std::string& name);

// The products of a speed on this machine. Without tiles they are float32, by ONNX Runtime.
struct ProductChoice {
  const TileProducts* tiles = nullptr;
  ProductKind kind = ProductKind::bf16x3;
};

// Chooses once for each speed, by the table in choice.cpp. Throws if BSMAMBA2_PRODUCTS names no
// kind of product.
const ProductChoice& products_of(Speed);

// For example "bf16x3 (amx)" or "float32", and the instruction sets that were refused.
std::string describe_products(Speed);

// The instruction sets of this machine that have products, best first, then the portable products.
const std::vector<const TileProducts*>& product_sets();

// The function for one kind; null if the set does not have it.
using TileFunction = void (*)(const TileCall&);
TileFunction multiply_of(const TileProducts&, ProductKind);

// Whether the products have the bits of the portable ones, for integers whose sums are exact in
// every order.
bool agree_with_portable(const TileProducts&, ProductKind);

}  // namespace bsmamba2
