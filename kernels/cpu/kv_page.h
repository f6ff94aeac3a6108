// Order of a page of the key-value cache in host memory: 16 positions of every key-value head.
// Keys stand transposed, [head][dim][16], so that 16 scores grow at once without horizontal sums;
// values row by row, [head][16][dim]. q8: i8 values in the same order, and behind all of them one
// f32 scale per position, head and 32 elements: keys [head][group][16], values [head][16][group].
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace glm {

struct KvPageLayout {
  KvDType dtype;
  int n_kv_heads;
  int head_dim;

  explicit KvPageLayout(const KvLayer& cache)
      : dtype(cache.dtype), n_kv_heads(cache.n_kv_heads), head_dim(cache.head_dim) {}

  int64_t bytes() const { return KvLayer::page_bytes(dtype, n_kv_heads, head_dim); }
  int64_t groups() const { return (head_dim + kQuantBlock - 1) / kQuantBlock; }

  // Element index of position `offset` of the page; the index of position 0, element 0 of a head is
  // head * 16 * head_dim for both.
  int64_t key(int head, int offset, int dim) const {
    return (int64_t{head} * head_dim + dim) * kKvBlockTokens + offset;
  }
  int64_t value(int head, int offset, int dim) const {
    return (int64_t{head} * kKvBlockTokens + offset) * head_dim + dim;
  }
  // Byte offset of the scales (q8), and index of one among them.
  int64_t scales() const { return int64_t{n_kv_heads} * kKvBlockTokens * head_dim; }
  int64_t key_scale(int head, int offset, int64_t group) const {
    return (head * groups() + group) * kKvBlockTokens + offset;
  }
  int64_t value_scale(int head, int offset, int64_t group) const {
    return (int64_t{head} * kKvBlockTokens + offset) * groups() + group;
  }
};

}  // namespace glm
