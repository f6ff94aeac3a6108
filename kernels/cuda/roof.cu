// Kernels that only read, or only multiply. SPDX-License-Identifier: MIT
#include "kernels/cuda/launch.h"
#include "kernels/cuda/roof.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;
constexpr int kPieces = 8;  // of 16 bytes, of a thread
// What no result is: the compiler does not know, and keeps the work.
constexpr uint32_t kNever = 0x9E3779B9u;

// The memory is zero.
__global__ void GLM_BOUNDS(kThreads, 2) read_pieces(ReadArgs a) {
  const int64_t first = int64_t{blockIdx.x} * kThreads * kPieces + threadIdx.x;
  Words4 pieces[kPieces];
  GLM_UNROLL
  for (int i = 0; i < kPieces; ++i) {
    const int64_t at = first + i * kThreads;
    pieces[i] = stream_words(a.memory + (at < a.n ? at : 0) * 16);
  }
  uint32_t joined = 0;
  GLM_UNROLL
  for (int i = 0; i < kPieces; ++i)
    joined |= pieces[i].v[0] | pieces[i].v[1] | pieces[i].v[2] | pieces[i].v[3];
  if (joined == kNever) *a.sink = joined;
}

// Sums stay small: factors are 0 and 1.
__global__ void GLM_BOUNDS(kThreads, 2) multiply(Int8Args a) {
  int32_t sums[kInt8Sums][4] = {};
  const uint32_t one = threadIdx.x % 32 == 0 ? 1u : 0u;
  const uint32_t left[4] = {one, 0, one, 0};
  const uint32_t right[2] = {one, one};
  for (int step = 0; step < kInt8Steps; ++step) {
    GLM_UNROLL
    for (int i = 0; i < kInt8Sums; ++i) mma_s8(sums[i], left, right);
  }
  uint32_t joined = 0;
  GLM_UNROLL
  for (int i = 0; i < kInt8Sums; ++i) joined |= static_cast<uint32_t>(sums[i][0] + sums[i][3]);
  if (joined == kNever) *a.sink = joined;
}

}  // namespace

void read_all(const ReadArgs& args, Stream stream) {
  const int64_t of_block = int64_t{kThreads} * kPieces;
  const Shape grid{(args.n + of_block - 1) / of_block};
  launch("read_all", read_pieces, grid, kThreads, 0, stream, args);
}

void int8_products(const Int8Args& args, int64_t blocks, Stream stream) {
  static_assert(kInt8Warps * 32 == kThreads);
  launch("int8_products", multiply, {blocks}, kThreads, 0, stream, args);
}

}  // namespace glm::GLM_CUDA_SPACE
