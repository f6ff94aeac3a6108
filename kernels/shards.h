// Fixed column ranges (shards) of a dot product: a property of the matrix, never of threads or
// ranks (docs/numerics.md). SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace glm {

// Columns of every shard but the last of a matrix with `cols` columns; a multiple of 32. The named
// widths put a border where a model is commonly divided (a key-value group, a rank's share).
constexpr int64_t shard_cols(int64_t cols) {
  switch (cols) {
    case 4096:
      return 1024;
    case 12288:
      return 1536;
    case 1408:
      return 352;
    case 10944:
      return 608;
    default:
      break;
  }
  if (cols <= 0) return 32;
  const int64_t shards = (cols + 1535) / 1536;
  return (cols + 32 * shards - 1) / (32 * shards) * 32;
}

}  // namespace glm
