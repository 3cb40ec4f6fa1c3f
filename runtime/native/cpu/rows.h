// Packs rows of float32 values into tiles, for the instruction set that this translation unit is
// compiled for. Every instruction set gives the same bits. Private to each translation unit, like
// vector.h.
#pragma once

#include "cpu/rounding.h"
#include "cpu/tiles.h"

namespace {

using bsmamba2::ProductKind;
using bsmamba2::tile_bytes;

// One row of one tile: the values go to every 64th byte group of the tile.
template <int parts>
INLINE void split_row(const float* values, uint8_t* to) {
  uint16_t high[32], low[32];
  for (int j = 0; j < 32; ++j) {
    const uint32_t first = to_bf16(bits_of(values[j]));
    high[j] = uint16_t(first >> 16);
    low[j] = uint16_t(to_bf16(bits_of(values[j] - float_of(first))) >> 16);
  }
  memcpy(to, high, 64);
  if (parts == 2) memcpy(to + tile_bytes, low, 64);
}

INLINE void round_row(const float* values, float factor, uint8_t* to) {
  uint8_t integers[64];
  for (int j = 0; j < 64; ++j) integers[j] = uint8_t(nearest(values[j] * factor) + 128);
  memcpy(to, integers, 64);
}

// See TileProducts.
template <int parts, bool integers>
INLINE unsigned pack_rows_as(const float* rows, int count, int64_t width, uint8_t* tiles,
                             float* scales) {
  constexpr int values = integers ? 64 : 32;
  unsigned not_finite = 0;
  for (int r = 0; r < 16; ++r) {
    const float* row = rows + r * width;
    float factor = 0;
    if (r < count) {
      uint32_t largest = 0;
      for (int64_t k = 0; k < width; ++k) {
        const uint32_t size = bits_of(row[k]) & 0x7fffffff;
        largest = size > largest ? size : largest;
      }
      if (!is_finite(largest)) not_finite |= 1u << r;
      const bool is_scaled = is_finite(largest) && float_of(largest) >= smallest_scaled;
      if (integers) {
        factor = is_scaled ? 127.0f / float_of(largest) : 0.0f;
        scales[r] = is_scaled ? float_of(largest) / 127.0f : 0.0f;
      }
    } else if (integers) {
      scales[r] = 0;
    }
    const bool is_zero = r >= count || (not_finite >> r & 1);
    uint8_t* to = tiles + r * 64;
    for (int64_t k = 0; k < width; k += values, to += parts * tile_bytes) {
      float padded[values] = {};
      const float* from = row + k;
      if (is_zero || k + values > width) {
        if (!is_zero) memcpy(padded, from, size_t(width - k) * 4);
        from = padded;
      }
      if (integers)
        round_row(from, factor, to);
      else
        split_row<parts>(from, to);
    }
  }
  return not_finite;
}

unsigned pack_rows(ProductKind kind, const float* rows, int count, int64_t width, uint8_t* tiles,
                   float* scales) {
  if (kind == ProductKind::int8) return pack_rows_as<1, true>(rows, count, width, tiles, scales);
  if (kind == ProductKind::bf16) return pack_rows_as<1, false>(rows, count, width, tiles, scales);
  return pack_rows_as<2, false>(rows, count, width, tiles, scales);
}

}  // namespace
