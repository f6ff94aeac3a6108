// Random weights, made and quantised where they live, with the bits of the CPU: a thread has 32
// columns of a row of a quantised matrix, or 4 of a plain one. SPDX-License-Identifier: MIT
#include "kernels/cuda/launch.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;

// Four values in [0, 1) of a stream: Philox 4x32-10 as in core/base/rng.cpp.
GLM_DEVICE Floats4 uniform(uint64_t key, uint64_t counter) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c[4] = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0};
  GLM_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    c[0] = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0;
    c[1] = static_cast<uint32_t>(p1);
    c[2] = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1;
    c[3] = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  Floats4 out;
  GLM_UNROLL
  for (int i = 0; i < 4; ++i) out.v[i] = static_cast<float>(c[i] >> 8) * 0x1p-24f;
  return out;
}

// Number in the stream of column 0 of local row `first` + `row`.
GLM_DEVICE int64_t stream_index(const RandomArgs& a, int64_t matrix, int64_t row) {
  int64_t stored = a.from_row + row;
  if (a.alternate) {
    const int64_t tile = stored / 16;
    stored = tile / 2 * 16 + (tile % 2 == 0 ? 0 : a.all_rows / 2) + stored % 16;
  }
  return ((a.from_matrix + matrix) * a.all_rows + stored) * a.all_cols + a.from_col;
}

// Of largest magnitude, the first of equals.
GLM_DEVICE float largest_of(const float (&x)[32]) {
  uint32_t top = 0;
  GLM_UNROLL
  for (int i = 0; i < 32; ++i) {
    const uint32_t magnitude = bits_of(x[i]) & 0x7FFFFFFFu;
    top = magnitude > top ? magnitude : top;
  }
  float largest = 0.0f;
  GLM_UNROLL
  for (int i = 31; i >= 0; --i) largest = (bits_of(x[i]) & 0x7FFFFFFFu) == top ? x[i] : largest;
  return largest;
}

// Bytes and scale of kernels/quantize.cpp; bytes in words as they stand in memory.
GLM_DEVICE uint16_t quantise_q40(const float (&x)[32], uint32_t (&words)[4]) {
  const float largest = largest_of(x);
  const uint16_t scale = largest == 0.0f ? uint16_t{0} : float_to_half(quotient(largest, -8.0f));
  const float d = half_to_float(scale);
  GLM_UNROLL
  for (int g = 0; g < 4; ++g) words[g] = d == 0.0f ? 0x88888888u : 0u;
  if (d == 0.0f) return scale;
  GLM_UNROLL
  for (int i = 0; i < 32; ++i) {
    const float step = quotient(x[i], d) + 8.5f;
    const float above = step > 0.0f ? step : 0.0f;
    const uint32_t q = static_cast<uint32_t>(above < 15.0f ? above : 15.0f);
    words[i % 16 / 4] |= q << (i % 4 * 8 + i / 16 * 4);
  }
  return scale;
}

GLM_DEVICE uint16_t quantise_q80(const float (&x)[32], uint32_t (&words)[8]) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: rounds to an integer, ties to even
  const float largest = float_of(bits_of(largest_of(x)) & 0x7FFFFFFFu);
  const uint16_t scale = float_to_half(quotient(largest, 127.0f));
  const float d = half_to_float(scale);
  GLM_UNROLL
  for (int g = 0; g < 8; ++g) words[g] = 0;
  if (d == 0.0f) return scale;
  GLM_UNROLL
  for (int i = 0; i < 32; ++i) {
    const float step = quotient(x[i], d);
    const float above = step > -127.0f ? step : -127.0f;
    const float bounded = above < 127.0f ? above : 127.0f;
    const int q = static_cast<int>((bounded + kRound) - kRound);
    words[i / 4] |= (static_cast<uint32_t>(q) & 0xFFu) << (i % 4 * 8);
  }
  return scale;
}

// Words: of a row of a block, 4 (q40) or 8 (q80).
template <int Words>
GLM_DEVICE void fill_block(const RandomArgs& a) {
  const int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t blocks = a.cols / 32;
  if (n >= a.count * blocks) return;
  const int64_t matrix = blockIdx.y;
  // Neighbours are the rows of a tile, else the blocks of a row.
  const int64_t lines = a.tiles ? 16 : 1;
  const int64_t lane = n % lines;
  const int64_t line = n / lines / blocks;
  const int64_t block = n / lines % blocks;
  const int64_t from = stream_index(a, matrix, line * lines + lane) + block * 32;
  float x[32];
  GLM_UNROLL
  for (int g = 0; g < 8; ++g) {
    const Floats4 u = uniform(a.key, static_cast<uint64_t>(from) / 4 + static_cast<uint64_t>(g));
    GLM_UNROLL
    for (int i = 0; i < 4; ++i) x[4 * g + i] = a.low + a.width * u.v[i];
  }
  uint32_t words[Words];
  uint16_t scale;
  if constexpr (Words == 4)
    scale = quantise_q40(x, words);
  else
    scale = quantise_q80(x, words);
  const int64_t piece = (a.first / lines + line) * blocks + block;  // tile, or block of a row
  a.scales[matrix * a.scale_stride + piece * lines + lane] = scale;
  auto* out = reinterpret_cast<uint32_t*>(a.values + matrix * a.value_stride) +
              piece * lines * Words + lane;
  GLM_UNROLL
  for (int g = 0; g < Words; ++g) out[g * lines] = words[g];
}

__global__ void GLM_BOUNDS(kThreads, 2) fill_q40(RandomArgs a) { fill_block<4>(a); }
__global__ void GLM_BOUNDS(kThreads, 2) fill_q80(RandomArgs a) { fill_block<8>(a); }

// u.v[i], without an array in memory.
GLM_DEVICE float chosen(const Floats4& u, int i) {
  const float low = i == 0 ? u.v[0] : u.v[1];
  const float high = i == 2 ? u.v[2] : u.v[3];
  return i < 2 ? low : high;
}

__global__ void GLM_BOUNDS(kThreads, 2) fill_plain(RandomArgs a) {
  const int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t groups = (a.cols + 3) / 4;
  if (n >= a.count * groups) return;
  const int64_t matrix = blockIdx.y;
  const int64_t row = n / groups;
  const int64_t col = n % groups * 4;
  const int64_t from = stream_index(a, matrix, row) + col;
  const int64_t at = (a.first + row) * a.cols + col;
  uint8_t* out = a.values + matrix * a.value_stride;
  uint64_t counter = static_cast<uint64_t>(from) / 4;
  Floats4 u = uniform(a.key, counter);
  for (int i = 0; i < 4 && col + i < a.cols; ++i) {
    const uint64_t index = static_cast<uint64_t>(from + i);
    if (index / 4 != counter) u = uniform(a.key, ++counter);
    const float x = a.low + a.width * chosen(u, static_cast<int>(index % 4));
    if (a.plane == Plane::kF32)
      reinterpret_cast<float*>(out)[at + i] = x;
    else
      reinterpret_cast<uint16_t*>(out)[at + i] =
          a.plane == Plane::kF16 ? float_to_half(x) : float_to_bfloat(x);
  }
}

}  // namespace

void fill_random(const RandomArgs& args, int64_t n_matrices, Stream stream) {
  const bool quantized = args.plane == Plane::kQ40 || args.plane == Plane::kQ80;
  const int64_t units = args.count * (quantized ? args.cols / 32 : (args.cols + 3) / 4);
  const Shape grid{(units + kThreads - 1) / kThreads, n_matrices};
  const auto kernel = !quantized ? fill_plain : args.plane == Plane::kQ40 ? fill_q40 : fill_q80;
  launch("fill_random", kernel, grid, kThreads, 0, stream, args);
}

}  // namespace glm::GLM_CUDA_SPACE
