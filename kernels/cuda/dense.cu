// What surrounds cuBLAS's products with f16 and bf16 matrices: inputs cut into two parts of the
// matrix's type, so that activations keep 16 bits (bf16) or 22 (f16) beside weights that are exact,
// and what becomes of the sums. f16 has a small range: a row is divided by a power of two near its
// largest value first. SPDX-License-Identifier: MIT
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// 2^power as a float.
GLM_DEVICE float power(int exponent) {
  return float_of(static_cast<uint32_t>(exponent + 127) << 23);
}

// The power of two that brings the row's largest value to [2^14, 2^15); 0 for a row of zeros, or
// one with what is not finite: it shows in the results.
GLM_DEVICE int shift_of(const float* x, int64_t cols) {
  float* tops = shared_as<float>();
  float top = 0.0f;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    const float magnitude = float_of(bits_of(x[c]) & 0x7FFFFFFFu);
    top = top > magnitude ? top : magnitude;
  }
  for (int step = 16; step > 0; step /= 2) {
    const float other = shuffle_xor(top, step);
    top = top > other ? top : other;
  }
  if (lane_id() == 0) tops[threadIdx.x / 32] = top;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) top = top > tops[w] ? top : tops[w];
  const int exponent = static_cast<int>(bits_of(top) >> 23) - 127;
  if (top == 0.0f || exponent == 128) return 0;
  return 14 - (exponent > -100 ? exponent : -100);
}

template <bool kBf16>
GLM_DEVICE uint32_t pair_of(float low, float high) {
  return kBf16 ? bfloat_pair(low, high) : half_pair(low, high);
}
template <bool kBf16>
GLM_DEVICE float number_of(uint32_t bits) {
  return kBf16 ? float_of(bits << 16) : half_to_float(static_cast<uint16_t>(bits));
}

template <bool kBf16>
__global__ void GLM_BOUNDS(kThreads, 4) cut_inputs(CutArgs a) {
  const int64_t row = blockIdx.x;
  const float* x = a.x + row * a.cols;
  int shift = 0;
  if (!kBf16) shift = shift_of(x, a.cols);
  if (!kBf16 && threadIdx.x == 0) a.scales[row] = power(-shift);
  const float scale = power(shift);
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) {
    const float value = x[c] * scale;
    const uint32_t high = pair_of<kBf16>(value, 0.0f) & 0xFFFFu;
    a.high[row * a.cols + c] = static_cast<uint16_t>(high);
    a.low[row * a.cols + c] =
        static_cast<uint16_t>(pair_of<kBf16>(value - number_of<kBf16>(high), 0.0f));
  }
}

__global__ void GLM_BOUNDS(kThreads, 4) finish_sums(FinishArgs a) {
  const int64_t row = blockIdx.x;
  const int64_t m = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (m >= a.width) return;
  const float scale = a.scales == nullptr ? 1.0f : a.scales[row];
  const float* sums = a.sums + row * a.width * (a.gated ? 2 : 1);
  float value = sums[m] * scale;
  if (a.gated) value = silu_of(value) * (sums[a.width + m] * scale);
  if (a.bias != nullptr) value = value + a.bias[m];
  a.out[row * a.width + m] = value;
}

}  // namespace

void cut_rows(const CutArgs& args, int64_t n_rows, Stream stream) {
  launch("cut rows",
         args.scales == nullptr ? cut_inputs<true> : cut_inputs<false>,
         {n_rows},
         kThreads,
         kWarps * sizeof(float),
         stream,
         args);
}

void finish_rows_of_sums(const FinishArgs& args, int64_t n_rows, Stream stream) {
  const Shape grid{n_rows, (args.width + kThreads - 1) / kThreads};
  launch("finish sums", finish_sums, grid, kThreads, 0, stream, args);
}

}  // namespace glm::GLM_CUDA_SPACE
