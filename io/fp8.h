// FP8 codes as numbers. SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>

namespace glm {

// E4M3 without infinities: sign, four exponent bits with bias 7, three mantissa bits; S.1111.111 is
// NaN, the largest number 448.
constexpr float f8_e4m3_to_f32(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const float sign = (code & 0x80) != 0 ? -1.0f : 1.0f;
  if (exponent == 15 && mantissa == 7)
    return (code & 0x80) != 0 ? -__builtin_nanf("") : __builtin_nanf("");
  // In units of 2^-9, the smallest subnormal.
  const int units = exponent == 0 ? mantissa : (8 + mantissa) << (exponent - 1);
  return sign * static_cast<float>(units) * 0x1p-9f;
}

inline constexpr std::array<float, 256> kF8E4M3 = [] {
  std::array<float, 256> table = {};
  for (unsigned code = 0; code < table.size(); ++code)
    table[code] = f8_e4m3_to_f32(static_cast<uint8_t>(code));
  return table;
}();

}  // namespace glm
