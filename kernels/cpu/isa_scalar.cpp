// The scalar level: the definition of every product to the bit. SPDX-License-Identifier: MIT
#define GLM_ISA isa_scalar
#include "kernels/cpu/lanes_scalar.h"
//
#include "kernels/cpu/isa_table.h"

namespace glm::GLM_ISA {
namespace {

// Element `column` of row `lane` of a tile, and its integer dot product with an input block.
int32_t dot_q40(const uint8_t* tile, int lane, const int8_t* q) {
  int32_t sum = 0;
  for (int j = 0; j < 16; ++j) {
    const uint8_t byte = tile[(j / 4 * 16 + lane) * 4 + j % 4];
    sum += ((byte & 15) - 8) * q[j] + ((byte >> 4) - 8) * q[j + 16];
  }
  return sum;
}

int32_t dot_q80(const uint8_t* tile, int lane, const int8_t* q) {
  int32_t sum = 0;
  for (int j = 0; j < 32; ++j)
    sum += static_cast<int8_t>(tile[(j / 4 * 16 + lane) * 4 + j % 4]) * q[j];
  return sum;
}

template <int kTileBytes, int32_t (*kDot)(const uint8_t*, int, const int8_t*)>
void tile_product(const TileProduct& a) {
  for (int i = 0; i < a.n_inputs; ++i) {
    for (int lane = 0; lane < 16; ++lane) {
      float y = 0.0f;
      for (int64_t begin = 0; begin < a.blocks; begin += a.shard_blocks) {
        const int64_t end = begin + a.shard_blocks < a.blocks ? begin + a.shard_blocks : a.blocks;
        float p = 0.0f;
        for (int64_t b = begin; b < end; ++b) {
          const QuantBlock& x = a.inputs[i][b];
          const float scale = half_to_float(a.scales[b * 16 + lane]) * x.d;
          const int32_t sum = kDot(a.values + b * kTileBytes, lane, x.q);
          p = std::fma(scale, static_cast<float>(sum), p);
        }
        y = begin == 0 ? p : y + p;
      }
      a.out[i * 16 + lane] = y;
    }
  }
}

int64_t int8_peak(int64_t steps) {
  int32_t sums[4] = {};
  for (int64_t s = 0; s < steps; ++s) {
    for (int i = 0; i < 4; ++i) {
      int32_t weight = i;
      __asm__ volatile("" : "+r"(weight));
      sums[i] += weight * 3;
    }
  }
  __asm__ volatile("" : : "r"(sums[0] + sums[1] + sums[2] + sums[3]));
  return steps * 4 * 2;
}

}  // namespace
}  // namespace glm::GLM_ISA

namespace glm {

const KernelTable* scalar_kernels() {
  static constexpr KernelTable kTable =
      isa_scalar::make_table("scalar",
                             isa_scalar::tile_product<256, isa_scalar::dot_q40>,
                             isa_scalar::tile_product<512, isa_scalar::dot_q80>,
                             isa_scalar::int8_peak);
  return &kTable;
}

}  // namespace glm
