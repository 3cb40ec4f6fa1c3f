// Conversion of float16 to float32 and back, rounding to nearest. Input and output tokens may be
// float16; all arithmetic is float32. Private to each translation unit, like vector.h.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX2__)
void widen(const uint16_t* half, float* single, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(single + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(half + i))));
  for (; i < count; ++i) single[i] = _cvtsh_ss(half[i]);
}
void narrow(const float* single, uint16_t* half, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128((__m128i*)(half + i), _mm256_cvtps_ph(_mm256_loadu_ps(single + i), 0));
  for (; i < count; ++i) half[i] = uint16_t(_cvtss_sh(single[i], 0));
}
#else
void widen(const uint16_t* half, float* single, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t exponent = half[i] >> 10 & 31, fraction = half[i] & 1023;
    const float tiny = float(fraction) * 5.9604645e-8f;  // 2⁻²⁴
    uint32_t word = exponent + (exponent == 31 ? 224 : 112);
    word = word << 23 | fraction << 13;
    if (exponent == 0) memcpy(&word, &tiny, 4);
    word |= uint32_t(half[i] >> 15) << 31;
    memcpy(single + i, &word, 4);
  }
}
void narrow(const float* single, uint16_t* half, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t word;
    memcpy(&word, single + i, 4);
    const uint32_t sign = word >> 31 << 15;
    word &= 0x7fffffff;
    if (word > 0x7f800000) {
      word = 0x7e00;
    } else if (word >= 0x47800000) {  // 65536 or more
      word = 0x7c00;
    } else if (word < 0x38800000) {  // below 2⁻¹⁴: adding 1/2 rounds to a multiple of 2⁻²⁴
      float shifted;
      memcpy(&shifted, &word, 4);
      shifted += 0.5f;
      memcpy(&word, &shifted, 4);
      word -= 0x3f000000;
    } else {
      word = (word - 0x38000000 + 0xfff + (word >> 13 & 1)) >> 13;
    }
    half[i] = uint16_t(sign | word);
  }
}
#endif

}  // namespace
