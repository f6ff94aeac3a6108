// Formulas that several kernels share, operation by operation those of the CPU
// (kernels/cpu/isa_body.h), so that both give the same bits. SPDX-License-Identifier: MIT
#pragma once

#include "kernels/cuda/lang.h"

namespace glm::GLM_CUDA_SPACE {

// Input blocks whose largest magnitude is below count as zero (kernels/quantize.h).
constexpr float kSmallestBlock = 0x1p-120f;
constexpr float kLargestFloat = 0x1.fffffep127f;

GLM_DEVICE float exp_of(float x) {
  const float above = -87.33f > x ? -87.33f : x;
  const float bounded = 88.0f < above ? 88.0f : above;
  const float n = nearest_even(bounded * 0x1.715476p+0f);
  const float high = fused(n, -0x1.62e4p-1f, bounded);
  const float r = fused(n, -0x1.7f7d1cp-20f, high);
  float p = 0x1.0fa82ep-7f;
  p = fused(p, r, 0x1.573a84p-5f);
  p = fused(p, r, 0x1.555a6cp-3f);
  p = fused(p, r, 0x1.fffdc4p-2f);
  p = fused(p, r, 0x1.fffff6p-1f);
  p = fused(p, r, 1.0f);
  const bool number = n == n;
  const int exponent = number ? static_cast<int>(n) + 127 : 0;
  const float power = float_of(static_cast<uint32_t>(exponent) << 23);
  return x < -87.33f ? 0.0f : p * power;
}

GLM_DEVICE float sigmoid_of(float x) { return quotient(1.0f, 1.0f + exp_of(0.0f - x)); }
GLM_DEVICE float silu_of(float x) { return quotient(x, 1.0f + exp_of(0.0f - x)); }

// Rounded to even and kept within [-127, 127]; NaN gives -127.
GLM_DEVICE int quantized(float scaled) {
  const float step = nearest_even(scaled);
  const float above = step > -127.0f ? step : -127.0f;
  return static_cast<int>(above < 127.0f ? above : 127.0f);
}

// Larger first, NaN last.
GLM_DEVICE bool better(float a, float b) { return a > b || (b != b && a == a); }

}  // namespace glm::GLM_CUDA_SPACE
