// Products with matrices. With q80 and q40 weights the input row is quantised to int8 in blocks of
// 32 first, with exactly the rounding that every backend uses. SPDX-License-Identifier: MIT
#include <cmath>
#include <vector>

#include "kernels/quantize.h"
#include "kernels/ref/ref_ops.h"

namespace glm {
namespace {

// x as the dot products see it: itself, or (quantised weights) int8 steps times the block's scale.
std::vector<double> effective_input(const float* x, int64_t cols, DType dtype) {
  std::vector<double> out(x, x + cols);
  if (!is_quantized(dtype)) return out;
  for (int64_t first = 0; first < cols; first += kQuantBlock) {
    const float largest = largest_magnitude(x + first, kQuantBlock);
    const float inverse = largest >= kSmallestBlock ? 127.0f / largest : 0.0f;
    const float step = largest < kSmallestBlock ? 0.0f : largest / 127.0f;
    for (int64_t i = first; i < first + kQuantBlock; ++i)
      out[static_cast<size_t>(i)] = double{step} * std::nearbyint(x[i] * inverse);
  }
  return out;
}

// Rows of one matrix of a stack, decoded one at a time.
struct Matrix {
  const Weight& w;
  int64_t index;

  std::vector<float> row(int64_t r) const {
    std::vector<float> out(static_cast<size_t>(w.cols));
    decode_row(static_cast<const uint8_t*>(w.values) + index * w.value_stride(),
               static_cast<const uint8_t*>(w.scales) + index * w.scale_stride(),
               w.rows,
               w.cols,
               w.dtype,
               w.packing,
               r,
               out.data());
    return out;
  }

  // Where gate row m and up row m of a fused matrix stand.
  int64_t gate_row(int64_t m) const {
    return w.packing == Packing::kRows ? m : m / kTileRows * 2 * kTileRows + m % kTileRows;
  }
  int64_t up_row(int64_t m) const {
    return w.packing == Packing::kRows ? w.rows / 2 + m : gate_row(m) + kTileRows;
  }
};

double dot(const std::vector<float>& w, const std::vector<double>& x) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) sum += w[i] * x[i];
  return sum;
}

// Rows of the input, ready for dot products: every row of the matrix is decoded once for all.
using Inputs = std::vector<std::vector<double>>;

void gate_up_rows(const Matrix& matrix, const Inputs& inputs, float* out) {
  const int64_t width = matrix.w.rows / 2;
  for (int64_t m = 0; m < width; ++m) {
    const std::vector<float> gate_weights = matrix.row(matrix.gate_row(m));
    const std::vector<float> up_weights = matrix.row(matrix.up_row(m));
    for (size_t t = 0; t < inputs.size(); ++t) {
      const double gate = dot(gate_weights, inputs[t]);
      const double up = dot(up_weights, inputs[t]);
      out[static_cast<int64_t>(t) * width + m] =
          static_cast<float>(gate / (1.0 + std::exp(-gate)) * up);
    }
  }
}

void linear_rows(const Matrix& matrix, const Inputs& inputs, const float* bias, float* out) {
  for (int64_t r = 0; r < matrix.w.rows; ++r) {
    const std::vector<float> weights = matrix.row(r);
    for (size_t t = 0; t < inputs.size(); ++t) {
      const double sum = dot(weights, inputs[t]);
      out[static_cast<int64_t>(t) * matrix.w.rows + r] =
          static_cast<float>(bias == nullptr ? sum : sum + double{bias[r]});
    }
  }
}

Inputs all_inputs(Tensor x, const Weight& w) {
  Inputs inputs;
  for (int64_t t = 0; t < x.rows(); ++t)
    inputs.push_back(effective_input(x.f32() + t * w.cols, w.cols, w.dtype));
  return inputs;
}

}  // namespace

void RefOps::do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) {
  linear_rows({w, 0}, all_inputs(x, w), bias.absent() ? nullptr : bias.f32(), out.f32());
}

void RefOps::do_gate_up(Tensor out, Tensor x, const Weight& w) {
  gate_up_rows({w, 0}, all_inputs(x, w), out.f32());
}

void RefOps::do_expert_gate_up(Tensor out, Tensor x, const ExpertGroups& groups, const Weight& w) {
  for (int e = 0; e < groups.n_experts; ++e) {
    const int64_t first = groups.offsets.i32()[e];
    Inputs inputs;
    for (int64_t i = first; i < groups.offsets.i32()[e + 1]; ++i)
      inputs.push_back(effective_input(x.f32() + groups.rows.i32()[i] * w.cols, w.cols, w.dtype));
    if (!inputs.empty()) gate_up_rows({w, e}, inputs, out.f32() + first * (w.rows / 2));
  }
}

void RefOps::do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) {
  for (int e = 0; e < groups.n_experts; ++e) {
    const int64_t first = groups.offsets.i32()[e];
    const int64_t count = groups.offsets.i32()[e + 1] - first;
    if (count > 0)
      linear_rows(
          {w, e}, all_inputs(h.slice(first, count), w), nullptr, out.f32() + first * w.rows);
  }
}

}  // namespace glm
