// The paged key-value cache of this rank's layers: one allocation, pages of 16 positions. Which
// page belongs to whom is the scheduler's business (core/engine/block_allocator.h).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "core/base/device.h"
#include "kernels/types.h"

namespace glm {

class KvCache {
 public:
  KvCache(Device& device,
          KvDType dtype,
          int64_t n_layers,
          int n_kv_heads,
          int head_dim,
          int64_t n_blocks)
      : shape_{dtype, n_kv_heads, head_dim, n_blocks, nullptr, nullptr},
        plane_bytes_(n_blocks * KvLayer::page_bytes(dtype, n_kv_heads, head_dim)),
        memory_(device.allocate(DType::kU8,
                                {bytes(dtype, n_layers, n_kv_heads, head_dim, n_blocks)})) {}

  // Keys and values of the stage's layer number `local_layer`.
  KvLayer layer(int64_t local_layer) const {
    KvLayer layer = shape_;
    layer.keys = memory_.as<char>() + 2 * local_layer * plane_bytes_;
    layer.values = memory_.as<char>() + (2 * local_layer + 1) * plane_bytes_;
    return layer;
  }

  static int64_t bytes(
      KvDType dtype, int64_t n_layers, int n_kv_heads, int head_dim, int64_t n_blocks) {
    return 2 * n_layers * n_blocks * KvLayer::page_bytes(dtype, n_kv_heads, head_dim);
  }

 private:
  KvLayer shape_;
  int64_t plane_bytes_;
  Tensor memory_;
};

}  // namespace glm
