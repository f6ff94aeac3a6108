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

}  // namespace glm::GLM_ISA
