// The key-value cache and attention over it. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ref/kv_vector.h"
#include "kernels/ref/ref_ops.h"

namespace glm {
namespace {

void attend(const float* query,
            const KvLayer& cache,
            const int32_t* blocks,
            int n_positions,
            int kv_head,
            float* out) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(cache.head_dim));
  std::vector<double> scores(static_cast<size_t>(n_positions));
  double largest = -std::numeric_limits<double>::infinity();
  const auto vector_at = [&](bool is_key, int position) {
    return KvVector{
        cache, is_key, blocks[position / kKvBlockTokens], kv_head, position % kKvBlockTokens};
  };
  for (int p = 0; p < n_positions; ++p) {
    double dot = 0;
    const KvVector key = vector_at(true, p);
    for (int dim = 0; dim < cache.head_dim; ++dim) dot += query[dim] * key.read(dim);
    scores[static_cast<size_t>(p)] = dot * scale;
    largest = std::max(largest, dot * scale);
  }
  double total = 0;
  std::vector<double> sums(static_cast<size_t>(cache.head_dim));
  for (int p = 0; p < n_positions; ++p) {
    const double weight = std::exp(scores[static_cast<size_t>(p)] - largest);
    total += weight;
    const KvVector value = vector_at(false, p);
    for (int dim = 0; dim < cache.head_dim; ++dim)
      sums[static_cast<size_t>(dim)] += weight * value.read(dim);
  }
  for (int dim = 0; dim < cache.head_dim; ++dim)
    out[dim] = static_cast<float>(sums[static_cast<size_t>(dim)] / total);
}

}  // namespace

void RefOps::do_store_kv(const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads) {
  for (int64_t t = 0; t < qkv.rows(); ++t) {
    const int32_t slot = slots.i32()[t];
    GLM_CHECK(slot >= 0 && slot < cache.n_blocks * kKvBlockTokens, "store_kv: slot {}", slot);
    const float* keys = qkv.f32() + t * heads.row_width() + int64_t{heads.n_heads} * heads.head_dim;
    const float* values = keys + int64_t{heads.n_kv_heads} * heads.head_dim;
    for (int head = 0; head < heads.n_kv_heads; ++head) {
      const int64_t page = slot / kKvBlockTokens;
      const int offset = slot % kKvBlockTokens;
      const int64_t first = int64_t{head} * heads.head_dim;
      KvVector{cache, true, page, head, offset}.write(keys + first);
      KvVector{cache, false, page, head, offset}.write(values + first);
    }
  }
}

void RefOps::do_attention(
    Tensor out, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads) {
  const auto* spans = rows.spans.as<SequenceSpan>();
  for (int s = 0; s < rows.n_spans; ++s) {
    for (int i = 0; i < spans[s].n_rows; ++i) {
      const int64_t t = spans[s].first_row + i;
      for (int head = 0; head < heads.n_heads; ++head) {
        attend(qkv.f32() + t * heads.row_width() + int64_t{head} * heads.head_dim,
               cache,
               rows.block_table.i32() + spans[s].first_block,
               spans[s].position + i + 1,
               heads.kv_head_of(head),
               out.f32() + (t * heads.n_heads + head) * heads.head_dim);
      }
    }
  }
}

}  // namespace glm
