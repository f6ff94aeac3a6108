// What the measurement of a GPU's roofs asks of the unit with its kernels.
// SPDX-License-Identifier: MIT
#pragma once

#include "kernels/cuda/launchers.h"

namespace glm::GLM_CUDA_SPACE {

// Reads `n` pieces of 16 bytes.
struct ReadArgs {
  const uint8_t* memory;
  int64_t n;
  uint32_t* sink;
};
void read_all(const ReadArgs& args, Stream stream);

struct Int8Args {
  uint32_t* sink;
};
void int8_products(const Int8Args& args, int64_t blocks, Stream stream);
// Operations of a block of it.
inline constexpr int kInt8Warps = 8;
inline constexpr int kInt8Sums = 8;  // products under way in a warp
inline constexpr int kInt8Steps = 64;
inline constexpr double kInt8Operations = 2.0 * 16 * 8 * 32 * kInt8Sums * kInt8Steps * kInt8Warps;

}  // namespace glm::GLM_CUDA_SPACE
