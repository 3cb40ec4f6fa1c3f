// What an instruction set implements for products with packed weights: see product.h. Included by
// translation units of several instruction sets, so nothing here may be emitted as a function that
// the linker could merge.
#pragma once

#include <cstdint>

namespace bsmamba2 {

// For an output of float32 the factors are narrower:
//
//     bf16x3   each factor as a sum of two bf16 parts, a = a1 + a2, and three products,
//              a1·b1 + a2·b1 + a1·b2, summed in float32
//     bf16     one product of bf16 values, summed in float32
//     int8     one product of 8-bit integers. A weight's scale belongs to its column of the output,
//              a value's scale to its row.
enum class ProductKind { bf16x3, bf16, int8 };

// Both factors are stored as tiles of 1 KB, 16 by 64 bytes, which every instruction set here takes.
// A tile of rows holds 16 rows of 32 bf16 or 64 int8 values. A tile of weights holds, for each four
// bytes of a row, the four bytes of each of 16 columns.
//
//     rows       [16 rows]    [step of 64 bytes] [part]  (16 rows, 64 bytes)
//     weights    [16 columns] [step of 64 bytes] [part]  (16 groups of 4 bytes, 16 columns, 4 bytes)
constexpr int tile_rows = 16, tile_columns = 16, tile_bytes = 1024;

// Up to two tiles of rows by two tiles of columns of an output. All 16 × 16 values of each tile are
// written. The products of a sum are added step by step.
struct TileCall {
  const uint8_t* rows;
  int64_t rows_stride;  // bytes from one tile of rows to the next
  const uint8_t* weights;
  int64_t weights_stride;
  int row_tiles, column_tiles;
  int64_t steps;
  float* out;
  int64_t out_stride;  // floats
  // Only for int8. A row's values are stored with 128 added, because the instructions multiply
  // unsigned by signed integers, so the sum of each column times 128 is subtracted.
  const float* row_scales;
  const float* column_scales;
  const int32_t* offsets;
};

// A null function is one that the instruction set does not have or need.
struct TileProducts {
  const char* name;
  // Packs `count` ≤ 16 rows of `width` values into one tile of rows, writes their scales (int8), and
  // returns the mask of the rows that are not finite.
  unsigned (*pack_rows)(ProductKind, const float* rows, int count, int64_t width, uint8_t* tiles,
                        float* scales);
  void (*bf16x3)(const TileCall&);
  void (*bf16)(const TileCall&);
  void (*int8)(const TileCall&);
  // Called on a thread before and after its products.
  void (*enter)();
  void (*leave)();
};

}  // namespace bsmamba2
