// The key-value cache and attention over it. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/kv_page.h"
#include "kernels/quantize.h"
#include "kernels/ref/ref_ops.h"

namespace glm {
namespace {

// One vector of head_dim elements of the cache: plane is keys or values, and index and scale_index
// say where element `dim` and its scale stand in a page.
struct CacheVector {
  const KvLayer& cache;
  bool is_key;
  int64_t page;
  int head;
  int offset;

  KvPageLayout layout() const { return KvPageLayout(cache); }
  uint8_t* base() const {
    void* plane = is_key ? cache.keys : cache.values;
    return static_cast<uint8_t*>(plane) + page * layout().bytes();
  }
  int64_t index(int dim) const {
    return is_key ? layout().key(head, offset, dim) : layout().value(head, offset, dim);
  }
  float* scale(int64_t group) const {
    const int64_t at = is_key ? layout().key_scale(head, offset, group)
                              : layout().value_scale(head, offset, group);
    return reinterpret_cast<float*>(base() + layout().scales()) + at;
  }

  void write(const float* x) const {
    for (int dim = 0; dim < cache.head_dim; ++dim) {
      if (cache.dtype == KvDType::kF32) reinterpret_cast<float*>(base())[index(dim)] = x[dim];
      if (cache.dtype == KvDType::kF16)
        reinterpret_cast<uint16_t*>(base())[index(dim)] = f32_to_f16(x[dim]);
    }
    if (cache.dtype == KvDType::kQ8)
      for (int64_t group = 0; group < layout().groups(); ++group) write_group(x, group);
  }

  // One scale for 32 elements (fewer in the last group): rounded to even in steps of max|x| / 127.
  void write_group(const float* x, int64_t group) const {
    const int first = static_cast<int>(group * kQuantBlock);
    const int last = std::min(cache.head_dim, first + static_cast<int>(kQuantBlock));
    float largest = 0.0f;
    for (int dim = first; dim < last; ++dim)
      if (!(std::fabs(x[dim]) <= largest)) largest = std::fabs(x[dim]);
    const float inverse = largest >= kSmallestBlock ? 127.0f / largest : 0.0f;
    *scale(group) = largest < kSmallestBlock ? 0.0f : largest / 127.0f;
    for (int dim = first; dim < last; ++dim) {
      const float step = std::nearbyint(x[dim] * inverse);
      const float above = step > -127.0f ? step : -127.0f;
      reinterpret_cast<int8_t*>(base())[index(dim)] =
          static_cast<int8_t>(above < 127.0f ? above : 127.0f);
    }
  }

  double read(int dim) const {
    if (cache.dtype == KvDType::kF32) return reinterpret_cast<const float*>(base())[index(dim)];
    if (cache.dtype == KvDType::kF16)
      return f16_to_f32(reinterpret_cast<const uint16_t*>(base())[index(dim)]);
    return double{*scale(dim / kQuantBlock)} * reinterpret_cast<const int8_t*>(base())[index(dim)];
  }
};

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
    return CacheVector{
        cache, is_key, blocks[position / kKvBlockTokens], kv_head, position % kKvBlockTokens};
  };
  for (int p = 0; p < n_positions; ++p) {
    double dot = 0;
    const CacheVector key = vector_at(true, p);
    for (int dim = 0; dim < cache.head_dim; ++dim) dot += query[dim] * key.read(dim);
    scores[static_cast<size_t>(p)] = dot * scale;
    largest = std::max(largest, dot * scale);
  }
  double total = 0;
  std::vector<double> sums(static_cast<size_t>(cache.head_dim));
  for (int p = 0; p < n_positions; ++p) {
    const double weight = std::exp(scores[static_cast<size_t>(p)] - largest);
    total += weight;
    const CacheVector value = vector_at(false, p);
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
      CacheVector{cache, true, page, head, offset}.write(keys + first);
      CacheVector{cache, false, page, head, offset}.write(values + first);
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
