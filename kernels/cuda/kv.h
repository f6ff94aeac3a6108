// Elements of the key-value cache. SPDX-License-Identifier: MIT
#pragma once

#include "kernels/cuda/lang.h"

namespace glm::GLM_CUDA_SPACE {

constexpr int kGroup = 32;  // elements that share a scale in q8

template <KvPlane kPlane>
struct Element;
template <>
struct Element<KvPlane::kF32> {
  using Type = float;
  static GLM_DEVICE float value(float x) { return x; }
};
template <>
struct Element<KvPlane::kF16> {
  using Type = uint16_t;
  static GLM_DEVICE float value(uint16_t x) { return half_to_float(x); }
};
template <>
struct Element<KvPlane::kQ8> {
  using Type = int8_t;
  static GLM_DEVICE float value(int8_t x) { return static_cast<float>(x); }
};

}  // namespace glm::GLM_CUDA_SPACE
