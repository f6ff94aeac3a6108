// SPDX-License-Identifier: MIT
#include "kernels/tolerance.h"

#include <algorithm>
#include <cmath>

#include "kernels/quantize.h"
#include "kernels/ref/kv_vector.h"
#include "kernels/shards.h"

namespace glm {
namespace {

constexpr double kEps = 0x1p-24;      // half an ulp of 1 in f32
constexpr double kFloor = 0x1p-140;   // subnormal steps
constexpr double kF16Loss = 0x1p-11;  // relative, of a number rounded to f16
// Of a number that is cut into two bf16 (9 bits each, 2^-18), and of the product of the two small
// parts, which is left out (2^-18 of the whole product).
constexpr double kTwoBf16Loss = 2 * 0x1p-18;
constexpr double kExpError = 4 * 0x1p-23;  // relative error of the shared exp (docs/numerics.md)

// |w| of a row.
std::vector<double> magnitudes(const Weight& w, int64_t matrix, int64_t row) {
  std::vector<float> decoded(static_cast<size_t>(w.cols));
  decode_row(static_cast<const uint8_t*>(w.values) + matrix * w.value_stride(),
             static_cast<const uint8_t*>(w.scales) + matrix * w.scale_stride(),
             w.rows,
             w.cols,
             w.dtype,
             w.packing,
             row,
             decoded.data());
  std::vector<double> out;
  for (const float value : decoded) out.push_back(std::fabs(double{value}));
  return out;
}

// Sum of |w x| for every row of x and of w: [n][w.rows]. Quantising x enlarges no block's maximum.
std::vector<double> absolute_sums(Tensor x, const Weight& w, int64_t matrix) {
  std::vector<double> sums(static_cast<size_t>(x.rows() * w.rows));
  for (int64_t r = 0; r < w.rows; ++r) {
    const std::vector<double> row = magnitudes(w, matrix, r);
    for (int64_t t = 0; t < x.rows(); ++t) {
      const float* input = x.f32() + t * w.cols;
      double sum = 0;
      for (int64_t k = 0; k < w.cols; ++k)
        sum += row[static_cast<size_t>(k)] * std::fabs(double{input[k]});
      sums[static_cast<size_t>(t * w.rows + r)] = sum;
    }
  }
  return sums;
}

// Rounded operations that one term of a product passes through.
double product_terms(const Weight& w) {
  const int64_t shard = shard_cols(w.cols);
  const int64_t chain = is_quantized(w.dtype) ? shard / kQuantBlock : shard / 16 + 4;
  return static_cast<double>(chain + w.cols / shard + 4);
}

// Quantised inputs may exceed |x| by half a step; 2 covers it.
double product_unit(const Weight& w) { return (is_quantized(w.dtype) ? 2 : 1) * kEps; }

// Rounding of a product, relative to the sum of |w x|. cuBLAS adds 16 products at a time to a sum
// that tensor cores cut off instead of rounding, twice (low and high parts), after inputs were cut
// into two parts of 8 (bf16) or 11 bits and a sign.
double product_rounding(const Weight& w, bool fast) {
  if (!fast || (w.dtype != DType::kF16 && w.dtype != DType::kBF16))
    return product_terms(w) * product_unit(w);
  const double lost = w.dtype == DType::kBF16 ? 0x1p-17 : 0x1p-21;
  return lost + 2 * 2 * kEps * (static_cast<double>(w.cols) / 16 + 16);
}

// Errors of scores act twice (weight and total); sums of weights have at most 256 + 3 terms per
// split and three roundings per merge.
// Fast: what a factor loses beside that (`loss` of a query, key, weight or value; of weights far
// below 1 in f16 no more than 2^-25).
double attention_bound(const float* query,
                       const KvLayer& cache,
                       const int32_t* pages,
                       int visible,
                       int kv_head,
                       bool fast) {
  double score = 0;
  double value = 0;
  for (int p = 0; p < visible; ++p) {
    const int64_t page = pages[p / kKvBlockTokens];
    const KvVector key{cache, true, page, kv_head, p % kKvBlockTokens};
    const KvVector stored{cache, false, page, kv_head, p % kKvBlockTokens};
    double sum = 0;
    for (int d = 0; d < cache.head_dim; ++d) {
      sum += std::fabs(query[d] * key.read(d));
      value = std::max(value, std::fabs(stored.read(d)));
    }
    score = std::max(score, sum);
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(cache.head_dim));
  const double loss = !fast ? 0 : cache.dtype == KvDType::kF32 ? kTwoBf16Loss : kF16Loss;
  const double small = !fast ? 0 : 0x1p-25 * visible;
  const double score_error =
      ((static_cast<double>(cache.head_dim) + 6) * kEps + 2 * loss) * score * scale;
  const double merges = 4.0 * (visible / 256 + 1);
  const double weights = 2 * kExpError + (270 + merges) * kEps + 2 * loss + small;
  return (2 * score_error + weights) * value + kFloor;
}

}  // namespace

Tolerances linear_tolerance(Tensor x, const Weight& w, int64_t matrix, Tensor bias, bool fast) {
  Tolerances out = absolute_sums(x, w, matrix);
  const double unit = product_rounding(w, fast);
  for (size_t i = 0; i < out.size(); ++i) {
    const double extra =
        bias.absent() ? 0 : std::fabs(double{bias.f32()[i % static_cast<size_t>(w.rows)]});
    out[i] = unit * out[i] + 2 * kEps * (out[i] + extra) + kFloor;
  }
  return out;
}

Tolerances gate_up_tolerance(Tensor x, const Weight& w, int64_t matrix, bool fast) {
  const std::vector<double> sums = absolute_sums(x, w, matrix);
  const int64_t width = w.rows / 2;
  const double unit = product_rounding(w, fast);
  Tolerances out;
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t m = 0; m < width; ++m) {
      const bool rows = w.packing == Packing::kRows;
      const int64_t gate = rows ? m : m / kTileRows * 2 * kTileRows + m % kTileRows;
      const int64_t up = rows ? width + m : gate + kTileRows;
      const double g = sums[static_cast<size_t>(t * w.rows + gate)];
      const double u = sums[static_cast<size_t>(t * w.rows + up)];
      // |silu| <= |g| and its slope is below 1.1; both factors carry `unit`.
      out.push_back((2.1 * unit + kExpError + 8 * kEps) * g * u + kFloor);
    }
  }
  return out;
}

Tolerances relative_tolerance(Tensor expected, double terms) {
  Tolerances out;
  for (int64_t i = 0; i < expected.elements(); ++i)
    out.push_back(terms * kEps * std::fabs(double{expected.f32()[i]}) + kFloor);
  return out;
}

Tolerances norm_tolerance(Tensor expected, int64_t n) {
  return relative_tolerance(expected, static_cast<double>(n) / 128 + 8);
}

Tolerances rope_tolerance(Tensor qkv, const HeadLayout& heads) {
  Tolerances out;
  const int64_t head_dim = heads.head_dim;
  for (int64_t first = 0; first < qkv.elements(); first += head_dim) {
    double largest = 0;
    for (int64_t i = first; i < first + head_dim; ++i)
      largest = std::max(largest, std::fabs(double{qkv.f32()[i]}));
    for (int64_t i = 0; i < head_dim; ++i) out.push_back(4 * kEps * largest + kFloor);
  }
  return out;
}

Tolerances attention_tolerance(
    Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads, bool fast) {
  const int64_t head_dim = heads.head_dim;
  Tolerances out(static_cast<size_t>(int64_t{rows.n_rows} * heads.n_heads * head_dim));
  const auto* spans = rows.spans.as<SequenceSpan>();
  for (int s = 0; s < rows.n_spans; ++s) {
    const int32_t* pages = rows.block_table.i32() + spans[s].first_block;
    for (int64_t i = 0; i < int64_t{spans[s].n_rows} * heads.n_heads; ++i) {
      const int64_t t = spans[s].first_row + i / heads.n_heads;
      const int head = static_cast<int>(i % heads.n_heads);
      const int visible = spans[s].position + static_cast<int>(i / heads.n_heads) + 1;
      const double bound = attention_bound(qkv.f32() + t * heads.row_width() + head * head_dim,
                                           cache,
                                           pages,
                                           visible,
                                           heads.kv_head_of(head),
                                           fast);
      std::fill_n(out.begin() + (t * heads.n_heads + head) * head_dim, head_dim, bound);
    }
  }
  return out;
}

Tolerances combine_tolerance(Tensor out, Tensor rows, const ExpertGroups& groups) {
  Tolerances bounds;
  const int64_t cols = out.cols();
  const int64_t top_k = out.rows() == 0 ? 0 : groups.order.cols();
  for (int64_t t = 0; t < out.rows(); ++t) {
    for (int64_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < top_k && groups.order.i32()[t * top_k + k] >= 0; ++k)
        sum += std::fabs(double{groups.weights.f32()[t * top_k + k]} *
                         rows.f32()[groups.order.i32()[t * top_k + k] * cols + c]);
      bounds.push_back(static_cast<double>(top_k + 2) * kEps * sum + kFloor);
    }
  }
  return bounds;
}

Deviation compare(Tensor actual, Tensor expected, const Tolerances& tolerance) {
  GLM_CHECK(actual.elements() == expected.elements() &&
                static_cast<size_t>(actual.elements()) == tolerance.size(),
            "{} against {} with {} tolerances",
            actual.shape_text(),
            expected.shape_text(),
            tolerance.size());
  Deviation result;
  for (int64_t i = 0; i < actual.elements(); ++i) {
    const double want = expected.f32()[i];
    const double got = actual.f32()[i];
    if (!std::isfinite(want) && !std::isfinite(got)) continue;
    const double difference = std::fabs(want - got);
    const double bound = tolerance[static_cast<size_t>(i)];
    const double share = std::isfinite(difference) ? difference / bound : HUGE_VAL;
    result.worst_share = std::max(result.worst_share, share);
    const bool beyond = !(difference <= bound);
    if (beyond && !result.found) result = {true, i, want, got, share, result.worst_share};
  }
  return result;
}

}  // namespace glm
