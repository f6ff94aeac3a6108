// Inner loops written once over sixteen f32 lanes (lanes_*.h, included before this header), so that
// all instruction sets round alike. GLM_ISA names the namespace of the including unit.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace glm::GLM_ISA {

// ---- exp and what is made of it

constexpr float kExpLow = -87.33f;  // below: 0
constexpr float kExpHigh = 88.0f;   // above: as 88

// e^x = 2^n p(r), x = n ln 2 + r, |r| <= ln 2 / 2. ln 2 in two parts, the first of 15 bits, so that
// n times it is exact; p is the minimax polynomial of degree 5 with p(0) = 1, relative error 1e-7.
inline F exp_of(F x) {
  const F bounded = min_of(splat(kExpHigh), max_of(splat(kExpLow), x));
  const F n = round_even(bounded * splat(0x1.715476p+0f));
  const F high = fused(n, splat(-0x1.62e4p-1f), bounded);
  const F r = fused(n, splat(-0x1.7f7d1cp-20f), high);
  F p = splat(0x1.0fa82ep-7f);
  p = fused(p, r, splat(0x1.573a84p-5f));
  p = fused(p, r, splat(0x1.555a6cp-3f));
  p = fused(p, r, splat(0x1.fffdc4p-2f));
  p = fused(p, r, splat(0x1.fffff6p-1f));
  p = fused(p, r, splat(1.0f));
  return zero_below(x, kExpLow, p * power_of_two(n));
}

inline F sigmoid_of(F x) { return splat(1.0f) / (splat(1.0f) + exp_of(zero() - x)); }

inline void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    const F g = left == 16 ? load(gate + i) : load(gate + i, left);
    const F u = left == 16 ? load(up + i) : load(up + i, left);
    store(out + i, g / (splat(1.0f) + exp_of(zero() - g)) * u, left);
  }
}

inline void sigmoid(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    store(out + i, sigmoid_of(load(x + i, left)), left);
  }
}

inline void softmax(const float* x, int64_t n, float* out) {
  const float lowest = -__builtin_inff();
  F top = splat(lowest);
  for (int64_t i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    top = max_of(top, keep_first(load(x + i, left), left, lowest));
  }
  const F largest = splat(tree_max(top));
  F sum = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    const F e = keep_first(exp_of(load(x + i, left) - largest), left, 0.0f);
    sum = sum + e;
    store(out + i, e, left);
  }
  const F total = splat(tree_sum(sum));
  for (int64_t i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    store(out + i, load(out + i, left) / total, left);
  }
}

// ---- norm: 64 partial sums (column mod 64), added as a tree

inline void norm_row(const float* x, const float* weight, int64_t n, float eps, float* out) {
  F sums[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int j = 0; j < 4; ++j) {
      const F v = load(x + i + 16 * j);
      sums[j] = fused(v, v, sums[j]);
    }
  }
  for (int j = 0; i + 16 * j < n; ++j) {
    const int64_t left = n - i - 16 * j;
    const F v = load(x + i + 16 * j, static_cast<int>(left < 16 ? left : 16));
    sums[j] = fused(v, v, sums[j]);
  }
  const float squares = tree_sum((sums[0] + sums[2]) + (sums[1] + sums[3]));
  const F inverse = splat(1.0f / square_root(squares / static_cast<float>(n) + eps));
  for (i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    store(out + i, load(x + i, left) * inverse * load(weight + i, left), left);
  }
}

// ---- input rows of quantised products

// Blocks too small for 127 / max|x| to be finite count as zero; with a value that is not finite
// the scale is not finite either, and nor is any product.
constexpr float kSmallestBlock = 0x1p-120f;

inline void quantize_row(const float* x, int64_t blocks, QuantBlock* out) {
  for (int64_t b = 0; b < blocks; ++b, x += 32) {
    const F first = load(x);
    const F second = load(x + 16);
    const float top = top_bits(max_bits(magnitude(first), magnitude(second)));
    const bool usable = top >= kSmallestBlock && top <= __FLT_MAX__;
    out[b].d = top < kSmallestBlock ? 0.0f : top / 127.0f;
    int32_t sum = 0;
    if (usable) {
      const F inverse = splat(127.0f / top);
      store_i8(out[b].q, round_even(first * inverse));
      store_i8(out[b].q + 16, round_even(second * inverse));
      for (int i = 0; i < 32; ++i) sum += out[b].q[i];
    } else {
      for (int i = 0; i < 32; ++i) out[b].q[i] = 0;
    }
    out[b].minus_8_sum = -8 * sum;
  }
}

// ---- plain matrices: per shard 16 partial sums (column mod 16), added as a tree

struct LoadF32 {
  using Type = float;
  static F full(const float* p) { return load(p); }
  static F part(const float* p, int n) { return load(p, n); }
};
struct LoadF16 {
  using Type = uint16_t;
  static F full(const uint16_t* p) { return load_f16(p); }
  static F part(const uint16_t* p, int n) { return load_f16(p, n); }
};
struct LoadBF16 {
  using Type = uint16_t;
  static F full(const uint16_t* p) { return load_bf16(p); }
  static F part(const uint16_t* p, int n) { return load_bf16(p, n); }
};
struct LoadI8 {
  using Type = int8_t;
  static F full(const int8_t* p) { return load_i8(p); }
  static F part(const int8_t* p, int n) { return load_i8(p, n); }
};

template <class Load, int R, int X>
inline void rows_block(const RowProduct& a, int first_row, int first_input) {
  const auto* w = static_cast<const typename Load::Type*>(a.values) + first_row * a.cols;
  float y[R][X] = {};
  for (int64_t begin = 0; begin == 0 || begin < a.cols; begin += a.shard_cols) {
    const int64_t end = begin + a.shard_cols < a.cols ? begin + a.shard_cols : a.cols;
    F sums[R][X];
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < X; ++i) sums[r][i] = zero();
    int64_t k = begin;
    for (; k + 16 <= end; k += 16) {
      F x[X];
      for (int i = 0; i < X; ++i) x[i] = load(a.inputs[first_input + i] + k);
      for (int r = 0; r < R; ++r) {
        const F weights = Load::full(w + r * a.cols + k);
        for (int i = 0; i < X; ++i) sums[r][i] = fused(weights, x[i], sums[r][i]);
      }
    }
    if (k < end) {
      const int left = static_cast<int>(end - k);
      for (int r = 0; r < R; ++r) {
        const F weights = Load::part(w + r * a.cols + k, left);
        for (int i = 0; i < X; ++i)
          sums[r][i] = fused(weights, load(a.inputs[first_input + i] + k, left), sums[r][i]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < X; ++i) {
        const float p = tree_sum(sums[r][i]);
        y[r][i] = begin == 0 ? p : y[r][i] + p;
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < X; ++i) a.out[(first_input + i) * 16 + first_row + r] = y[r][i];
}

template <class Load, int X>
inline void rows_inputs(const RowProduct& a, int first_input) {
  int r = 0;
  for (; r + kRowBlock <= a.n_rows; r += kRowBlock)
    rows_block<Load, kRowBlock, X>(a, r, first_input);
  for (; r < a.n_rows; ++r) rows_block<Load, 1, X>(a, r, first_input);
}

template <class Load>
inline void rows_product(const RowProduct& a) {
  int i = 0;
  for (; i + kInputBlock <= a.n_inputs; i += kInputBlock) rows_inputs<Load, kInputBlock>(a, i);
  for (; i < a.n_inputs; ++i) rows_inputs<Load, 1>(a, i);
}

// ---- attention over one split

template <class Load, int Q>
inline void page_scores(const SplitAttention& a, const uint8_t* page, int first_query, F* scores) {
  using Type = typename Load::Type;
  const auto* keys = reinterpret_cast<const Type*>(page + a.head_bytes);
  for (int q = 0; q < Q; ++q) scores[q] = zero();
  if constexpr (sizeof(Type) == 1) {
    const auto* scales = reinterpret_cast<const float*>(page + a.key_scale_bytes);
    for (int begin = 0; begin < a.head_dim; begin += 32, scales += 16) {
      const int end = begin + 32 < a.head_dim ? begin + 32 : a.head_dim;
      F group[Q];
      for (int q = 0; q < Q; ++q) group[q] = zero();
      for (int d = begin; d < end; ++d) {
        const F key = Load::full(keys + d * 16);
        for (int q = 0; q < Q; ++q)
          group[q] = fused(splat(a.queries[first_query + q][d]), key, group[q]);
      }
      const F scale = load(scales);
      for (int q = 0; q < Q; ++q) scores[q] = fused(group[q], scale, scores[q]);
    }
  } else {
    for (int d = 0; d < a.head_dim; ++d) {
      const F key = Load::full(keys + d * 16);
      for (int q = 0; q < Q; ++q)
        scores[q] = fused(splat(a.queries[first_query + q][d]), key, scores[q]);
    }
  }
}

// Values of one position, 16 elements from dim on.
template <class Load>
inline F page_values(const SplitAttention& a, const uint8_t* page, int offset, int dim) {
  using Type = typename Load::Type;
  const auto* row = reinterpret_cast<const Type*>(page + a.head_bytes) + offset * a.head_dim + dim;
  const F v = dim + 16 <= a.head_dim ? Load::full(row) : Load::part(row, a.head_dim - dim);
  if constexpr (sizeof(Type) == 1) {
    const int groups = (a.head_dim + 31) / 32;
    const auto* scales = reinterpret_cast<const float*>(page + a.value_scale_bytes);
    return v * splat(scales[offset * groups + dim / 32]);
  } else {
    return v;
  }
}

// Adds positions [0, 16) of a page, each to the queries that see it.
template <class Load, int Q>
inline void add_page(const SplitAttention& a, int page_index, int first_query) {
  const uint8_t* page = a.values + a.pages[page_index] * a.page_bytes;
  const int begin = page_index * 16;
  int common = 16;  // positions that all queries of the block see
  for (int q = 0; q < Q; ++q) {
    const int seen = a.limits[first_query + q] - begin;
    common = seen < common ? seen : common;
  }
  common = common < 0 ? 0 : common;
  for (int dim = 0; dim < a.head_dim; dim += 16) {
    F sums[Q];
    for (int q = 0; q < Q; ++q) sums[q] = load(a.sums + (first_query + q) * a.stride + dim);
    for (int p = 0; p < common; ++p) {
      const F value = page_values<Load>(a, page, p, dim);
      for (int q = 0; q < Q; ++q)
        sums[q] =
            fused(splat(a.scores[(first_query + q) * kSplitPositions + begin + p]), value, sums[q]);
    }
    for (int q = 0; q < Q; ++q) {
      const int seen = a.limits[first_query + q] - begin;
      for (int p = common; p < seen && p < 16; ++p)
        sums[q] = fused(splat(a.scores[(first_query + q) * kSplitPositions + begin + p]),
                        page_values<Load>(a, page, p, dim),
                        sums[q]);
      store(a.sums + (first_query + q) * a.stride + dim, sums[q]);
    }
  }
}

template <class Load, int Q>
inline void attend_block(const SplitAttention& a, int first_query) {
  const float lowest = -__builtin_inff();
  int longest = 0;
  for (int q = 0; q < Q; ++q) {
    const int limit = a.limits[first_query + q];
    longest = limit > longest ? limit : longest;
  }
  const int n_pages = (longest + 15) / 16;
  F top[Q];
  for (int q = 0; q < Q; ++q) top[q] = splat(lowest);
  for (int page = 0; page < n_pages; ++page) {
    F scores[Q];
    page_scores<Load, Q>(a, a.keys + a.pages[page] * a.page_bytes, first_query, scores);
    for (int q = 0; q < Q; ++q) {
      const F scaled =
          keep_first(scores[q] * splat(a.scale), a.limits[first_query + q] - page * 16, lowest);
      top[q] = max_of(top[q], scaled);
      store(a.scores + (first_query + q) * kSplitPositions + page * 16, scaled);
    }
  }
  for (int q = 0; q < Q; ++q) {
    const float largest = tree_max(top[q]);
    float* scores = a.scores + (first_query + q) * kSplitPositions;
    F total = zero();
    const int own_pages = (a.limits[first_query + q] + 15) / 16;
    for (int page = 0; page < own_pages; ++page) {
      const F e = exp_of(load(scores + page * 16) - splat(largest));
      total = total + e;
      store(scores + page * 16, e);
    }
    a.largest[first_query + q] = largest;
    a.totals[first_query + q] = tree_sum(total);
    for (int64_t i = 0; i < a.stride; i += 16)
      store(a.sums + (first_query + q) * a.stride + i, zero());
  }
  for (int page = 0; page < n_pages; ++page) add_page<Load, Q>(a, page, first_query);
}

template <class Load>
inline void attend(const SplitAttention& a) {
  int q = 0;
  for (; q + kQueryBlock <= a.n_queries; q += kQueryBlock) attend_block<Load, kQueryBlock>(a, q);
  if constexpr (kQueryBlock > 4)
    for (; q + 4 <= a.n_queries; q += 4) attend_block<Load, 4>(a, q);
  if constexpr (kQueryBlock > 2)
    for (; q + 2 <= a.n_queries; q += 2) attend_block<Load, 2>(a, q);
  for (; q < a.n_queries; ++q) attend_block<Load, 1>(a, q);
}

inline void merge_split(float* largest,
                        float* total,
                        float* sums,
                        float split_largest,
                        float split_total,
                        const float* split_sums,
                        int64_t n) {
  const float top = *largest > split_largest ? *largest : split_largest;
  float weights[16];
  store(weights, exp_of(splat(*largest - top)));
  const float old_weight = weights[0];
  store(weights, exp_of(splat(split_largest - top)));
  const float new_weight = weights[0];
  *largest = top;
  *total = *total * old_weight + split_total * new_weight;
  for (int64_t i = 0; i < n; i += 16)
    store(sums + i, load(sums + i) * splat(old_weight) + load(split_sums + i) * splat(new_weight));
}

inline void divide(const float* sums, float total, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const int left = static_cast<int>(n - i < 16 ? n - i : 16);
    store(out + i, load(sums + i, left) / splat(total), left);
  }
}

// ---- roofs

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
