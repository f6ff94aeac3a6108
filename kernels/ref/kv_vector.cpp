// SPDX-License-Identifier: MIT
#include "kernels/ref/kv_vector.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/kv_page.h"
#include "kernels/quantize.h"

namespace glm {

uint8_t* KvVector::base() const {
  void* plane = is_key ? cache.keys : cache.values;
  return static_cast<uint8_t*>(plane) + page * KvPageLayout(cache).bytes();
}

int64_t KvVector::index(int dim) const {
  const KvPageLayout layout(cache);
  return is_key ? layout.key(head, offset, dim) : layout.value(head, offset, dim);
}

float* KvVector::scale(int64_t group) const {
  const KvPageLayout layout(cache);
  const int64_t at =
      is_key ? layout.key_scale(head, offset, group) : layout.value_scale(head, offset, group);
  return reinterpret_cast<float*>(base() + layout.scales()) + at;
}

void KvVector::write(const float* x) const {
  for (int dim = 0; dim < cache.head_dim; ++dim) {
    if (cache.dtype == KvDType::kF32) reinterpret_cast<float*>(base())[index(dim)] = x[dim];
    if (cache.dtype == KvDType::kF16)
      reinterpret_cast<uint16_t*>(base())[index(dim)] = f32_to_f16(x[dim]);
  }
  if (cache.dtype == KvDType::kQ8)
    for (int64_t group = 0; group < KvPageLayout(cache).groups(); ++group) write_group(x, group);
}

// One scale for 32 elements (fewer in the last group): rounded to even in steps of max|x| / 127.
void KvVector::write_group(const float* x, int64_t group) const {
  const int first = static_cast<int>(group * kQuantBlock);
  const int last = std::min(cache.head_dim, first + static_cast<int>(kQuantBlock));
  const float largest = largest_magnitude(x + first, last - first);
  const float inverse = largest >= kSmallestBlock ? 127.0f / largest : 0.0f;
  *scale(group) = largest < kSmallestBlock ? 0.0f : largest / 127.0f;
  for (int dim = first; dim < last; ++dim) {
    const float step = std::nearbyint(x[dim] * inverse);
    const float above = step > -127.0f ? step : -127.0f;
    reinterpret_cast<int8_t*>(base())[index(dim)] =
        static_cast<int8_t>(above < 127.0f ? above : 127.0f);
  }
}

double KvVector::read(int dim) const {
  if (cache.dtype == KvDType::kF32) return reinterpret_cast<const float*>(base())[index(dim)];
  if (cache.dtype == KvDType::kF16)
    return f16_to_f32(reinterpret_cast<const uint16_t*>(base())[index(dim)]);
  return double{*scale(dim / kQuantBlock)} * reinterpret_cast<const int8_t*>(base())[index(dim)];
}

}  // namespace glm
