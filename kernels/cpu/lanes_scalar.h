// Sixteen f32 lanes as an array: the definition that the vector versions follow.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace glm::GLM_ISA {

struct F {
  float v[16];
};

constexpr int kRowBlock = 1;
constexpr int kInputBlock = 1;
constexpr int kQueryBlock = 1;
constexpr int kAttentionChains = 1;

inline float as_float(uint32_t bits) {
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
inline uint32_t as_bits(float value) {
  uint32_t out;
  std::memcpy(&out, &value, 4);
  return out;
}
inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1Fu;
  const uint32_t mantissa = h & 0x3FFu;
  if (exponent == 0x1Fu) return as_float(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) return as_float(sign | as_bits(static_cast<float>(mantissa) * 0x1p-24f));
  return as_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

template <class Op>
inline F make(Op op) {
  F out;
  for (int i = 0; i < 16; ++i) out.v[i] = op(i);
  return out;
}

inline F splat(float x) {
  return make([x](int) { return x; });
}
inline F zero() { return splat(0.0f); }
inline F load(const float* p) {
  return make([p](int i) { return p[i]; });
}
inline F load(const float* p, int n) {
  return make([p, n](int i) { return i < n ? p[i] : 0.0f; });
}
inline F load_f16(const uint16_t* p, int n = 16) {
  return make([p, n](int i) { return i < n ? half_to_float(p[i]) : 0.0f; });
}
inline F load_bf16(const uint16_t* p, int n = 16) {
  return make([p, n](int i) { return i < n ? as_float(uint32_t{p[i]} << 16) : 0.0f; });
}
inline F load_i8(const int8_t* p, int n = 16) {
  return make([p, n](int i) { return i < n ? static_cast<float>(p[i]) : 0.0f; });
}
inline void store(float* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
inline void store(float* p, F a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
// Integral values within [-127, 127].
inline void store_i8(int8_t* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

inline F operator+(F a, F b) {
  return make([&](int i) { return a.v[i] + b.v[i]; });
}
inline F operator-(F a, F b) {
  return make([&](int i) { return a.v[i] - b.v[i]; });
}
inline F operator*(F a, F b) {
  return make([&](int i) { return a.v[i] * b.v[i]; });
}
inline F operator/(F a, F b) {
  return make([&](int i) { return a.v[i] / b.v[i]; });
}
// a * b + c, rounded once.
inline F fused(F a, F b, F c) {
  return make([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
// The second argument where either is NaN.
inline F max_of(F a, F b) {
  return make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F min_of(F a, F b) {
  return make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F round_even(F a) {
  return make([&](int i) { return std::nearbyint(a.v[i]); });
}
// 2^n for integral n within [-126, 127]; anything for NaN.
inline F power_of_two(F n) {
  return make([&](int i) {
    return std::isnan(n.v[i])
               ? 0.0f
               : as_float(static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23);
  });
}
// 0 where x < limit.
inline F zero_below(F x, float limit, F value) {
  return make([&](int i) { return x.v[i] < limit ? 0.0f : value.v[i]; });
}
inline F keep_first(F a, int n, float fill) {
  return make([&](int i) { return i < n ? a.v[i] : fill; });
}
inline F magnitude(F a) {
  return make([&](int i) { return as_float(as_bits(a.v[i]) & 0x7FFFFFFFu); });
}
// The larger of two magnitudes; NaN is larger than all.
inline F max_bits(F a, F b) {
  return make([&](int i) { return as_bits(a.v[i]) > as_bits(b.v[i]) ? a.v[i] : b.v[i]; });
}
inline float top_bits(F a) {
  uint32_t top = 0;
  for (int i = 0; i < 16; ++i) top = as_bits(a.v[i]) > top ? as_bits(a.v[i]) : top;
  return as_float(top);
}
// Lane i with i + 8, then + 4, + 2, + 1.
inline float tree_sum(F a) {
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] + a.v[i + step];
  return a.v[0];
}
inline float tree_max(F a) {
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
  return a.v[0];
}
inline float square_root(float x) { return std::sqrt(x); }

}  // namespace glm::GLM_ISA
