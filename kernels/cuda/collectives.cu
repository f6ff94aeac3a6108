// What a sum over ranks needs on the device: the pieces of all ranks are brought together by NCCL
// and added here, in ascending rank order, as on the host (parallel/group_communicator.cpp).
// SPDX-License-Identifier: MIT
#include "kernels/cuda/collectives.h"
#include "kernels/cuda/launch.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;

__global__ void add_pieces(SumPiecesArgs a) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.n) return;
  float sum = a.pieces[i];
  for (int piece = 1; piece < a.n_pieces; ++piece) sum = sum + a.pieces[piece * a.n + i];
  a.out[i] = sum;
}

}  // namespace

void sum_pieces(const SumPiecesArgs& args, Stream stream) {
  launch("sum_pieces", add_pieces, {(args.n + kThreads - 1) / kThreads}, kThreads, 0, stream, args);
}

}  // namespace glm::GLM_CUDA_SPACE
