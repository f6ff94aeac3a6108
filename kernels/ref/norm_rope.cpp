// Norms and rotary positions. SPDX-License-Identifier: MIT
#include <cmath>

#include "kernels/ref/ref_ops.h"

namespace glm {
namespace {

void norm_row(const float* x, const float* weight, int64_t n, float eps, float* out) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
  const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(n) + double{eps});
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<float>(double{x[i]} * inverse * double{weight[i]});
}

}  // namespace

void RefOps::do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) {
  const int64_t n = x.cols();
  for (int64_t t = 0; t < x.rows(); ++t)
    norm_row(x.f32() + t * n, weight.f32(), n, eps, out.f32() + t * n);
}

void RefOps::do_head_norm(
    Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) {
  for (int64_t t = 0; t < qkv.rows(); ++t) {
    for (int head = first_head; head < first_head + n_heads; ++head) {
      float* x = qkv.f32() + t * qkv.cols() + int64_t{head} * head_dim;
      norm_row(x, weight.f32(), head_dim, eps, x);
    }
  }
}

// The angle is one f32 product, as in the models' own code; its cosine is taken in double.
void RefOps::do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) {
  const int64_t half = inv_freq.elements();
  for (int64_t t = 0; t < out.rows(); ++t) {
    float* row = out.f32() + t * 2 * half;
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(positions.i32()[t]) * inv_freq.f32()[i];
      row[i] = static_cast<float>(std::cos(double{angle}));
      row[half + i] = static_cast<float>(std::sin(double{angle}));
    }
  }
}

void RefOps::do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) {
  const int64_t half = table.cols() / 2;
  for (int64_t t = 0; t < qkv.rows(); ++t) {
    const float* cosine = table.f32() + t * 2 * half;
    const float* sine = cosine + half;
    for (int head = 0; head < heads.n_heads + heads.n_kv_heads; ++head) {
      float* v = qkv.f32() + t * heads.row_width() + int64_t{head} * heads.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const bool interleaved = pairing == RopePairing::kInterleaved;
        float& first = v[interleaved ? 2 * i : i];
        float& second = v[interleaved ? 2 * i + 1 : i + half];
        const double x = first, y = second;
        first = static_cast<float>(x * cosine[i] - y * sine[i]);
        second = static_cast<float>(y * cosine[i] + x * sine[i]);
      }
    }
  }
}

}  // namespace glm
