// What groups of ranks on GPUs ask of the unit with their kernel. SPDX-License-Identifier: MIT
#pragma once

#include "kernels/cuda/launchers.h"

namespace glm::GLM_CUDA_SPACE {

// out := the sum of pieces [n_pieces][n] in ascending order; it may be one of them.
struct SumPiecesArgs {
  float* out;
  const float* pieces;
  int64_t n;
  int n_pieces;
};
void sum_pieces(const SumPiecesArgs& args, Stream stream);

}  // namespace glm::GLM_CUDA_SPACE
