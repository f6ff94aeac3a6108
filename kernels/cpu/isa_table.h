// The table of all inner loops of an instruction set, and the loops that measure roofs.
// SPDX-License-Identifier: MIT
#pragma once

#include "kernels/cpu/isa_attention.h"

namespace glm::GLM_ISA {

inline uint64_t sum_words(const uint8_t* p, int64_t bytes) {
  typedef uint64_t Words __attribute__((vector_size(64)));
  Words sums[4] = {};
  for (int64_t i = 0; i < bytes; i += 256) {
    for (int j = 0; j < 4; ++j) {
      Words words;
      __builtin_memcpy(&words, p + i + 64 * j, 64);
      sums[j] += words;
    }
  }
  const Words both = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  uint64_t sum = 0;
  for (int j = 0; j < 8; ++j) sum += both[j];
  return sum;
}

constexpr KernelTable make_table(const char* name,
                                 void (*tile_q40)(const TileProduct&),
                                 void (*tile_q80)(const TileProduct&),
                                 int64_t (*int8_peak)(int64_t)) {
  return {name,
          quantize_row,
          tile_q40,
          tile_q80,
          rows_product<LoadF32>,
          rows_product<LoadF16>,
          rows_product<LoadBF16>,
          norm_row,
          silu_mul,
          sigmoid,
          softmax,
          attend<LoadF32>,
          attend<LoadF16>,
          attend<LoadI8>,
          merge_split,
          divide,
          sum_words,
          int8_peak};
}

}  // namespace glm::GLM_ISA
