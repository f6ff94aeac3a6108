// Writing keys and values to pages of the cache (kv_page.h). SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kv_page.h"
#include "kernels/quantize.h"

namespace glm {
namespace {

// One vector of a page: elements `step` apart, scales `scale_step` apart.
struct PageVector {
  uint8_t* values;
  int64_t step;
  float* scales;
  int64_t scale_step;
};

void write_q8(const PageVector& to, const float* x, int head_dim) {
  auto* q = reinterpret_cast<int8_t*>(to.values);
  for (int begin = 0, group = 0; begin < head_dim; begin += 32, ++group) {
    const int end = std::min(head_dim, begin + 32);
    const float largest = largest_magnitude(x + begin, end - begin);
    const float inverse = largest >= kSmallestBlock ? 127.0f / largest : 0.0f;
    to.scales[group * to.scale_step] = largest < kSmallestBlock ? 0.0f : largest / 127.0f;
    for (int d = begin; d < end; ++d) {
      const float rounded = std::nearbyint(x[d] * inverse);
      const float above = rounded > -127.0f ? rounded : -127.0f;  // NaN too
      q[d * to.step] = static_cast<int8_t>(above < 127.0f ? above : 127.0f);
    }
  }
}

void write(KvDType dtype, const PageVector& to, const float* x, int head_dim) {
  if (dtype == KvDType::kQ8) {
    write_q8(to, x, head_dim);
    return;
  }
  if (dtype == KvDType::kF32) {
    auto* values = reinterpret_cast<float*>(to.values);
    for (int d = 0; d < head_dim; ++d) values[d * to.step] = x[d];
    return;
  }
  auto* values = reinterpret_cast<uint16_t*>(to.values);
  for (int d = 0; d < head_dim; ++d) values[d * to.step] = f32_to_f16(x[d]);
}

int64_t element_bytes(KvDType dtype) {
  return dtype == KvDType::kF32 ? 4 : (dtype == KvDType::kF16 ? 2 : 1);
}

}  // namespace

void CpuOps::do_store_kv(const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads) {
  const KvPageLayout page(cache);
  const int64_t size = element_bytes(cache.dtype);
  const auto store_row = [&](int64_t t) {
    const int32_t slot = slots.i32()[t];
    GLM_CHECK(slot >= 0 && slot < cache.n_blocks * kKvBlockTokens, "store_kv: slot {}", slot);
    const int offset = slot % kKvBlockTokens;
    const int64_t at = slot / kKvBlockTokens * page.bytes();
    uint8_t* keys = static_cast<uint8_t*>(cache.keys) + at;
    uint8_t* values = static_cast<uint8_t*>(cache.values) + at;
    const float* x = qkv.f32() + t * heads.row_width() + int64_t{heads.n_heads} * heads.head_dim;
    for (int head = 0; head < heads.n_kv_heads; ++head, x += heads.head_dim) {
      auto* key_scales = reinterpret_cast<float*>(keys + page.scales());
      auto* value_scales = reinterpret_cast<float*>(values + page.scales());
      write(cache.dtype,
            {keys + page.key(head, offset, 0) * size,
             kKvBlockTokens,
             key_scales + page.key_scale(head, offset, 0),
             kKvBlockTokens},
            x,
            heads.head_dim);
      write(cache.dtype,
            {values + page.value(head, offset, 0) * size,
             1,
             value_scales + page.value_scale(head, offset, 0),
             1},
            x + int64_t{heads.n_kv_heads} * heads.head_dim,
            heads.head_dim);
    }
  };
  const int64_t grain = row_grain(int64_t{2} * heads.n_kv_heads * heads.head_dim);
  pool_.parallel_for(qkv.rows(), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) store_row(t);
  });
}

}  // namespace glm
