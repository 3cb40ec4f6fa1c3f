// Rounding of float32 to bf16 and to integers, with the same bits on every instruction set. Private
// to each translation unit, like vector.h.
#pragma once

#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace {

INLINE uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
INLINE float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
INLINE bool is_finite(uint32_t u) { return (u & 0x7f800000) != 0x7f800000; }

// Rounds to the nearest bf16, ties to even, in the upper half of the result. A finite value never
// becomes infinite: the largest ones are cut off, and the second part holds the rest.
INLINE uint32_t to_bf16(uint32_t u) {
  const uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000;
  return is_finite(rounded) ? rounded : u & 0xffff0000;
}

// Rounds to the nearest integer, ties to even, for |x| < 2²².
INLINE int32_t nearest(float x) {
  const float shifted = x + 12582912.0f;  // 1.5·2²³, whose last bit has the value 1
  return int32_t(bits_of(shifted)) - 0x4b400000;
}

// Below this, 127 / x would overflow.
constexpr float smallest_scaled = 1e-35f;

}  // namespace
