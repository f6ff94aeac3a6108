// Operations on whole rows: moves, sums, norms, rotary positions. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/quantize.h"

namespace glm {

void CpuOps::do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) {
  const auto one = [&](int64_t t) {
    float* row = out.f32() + t * table.cols;
    const int64_t id = ids.i32()[t] - first_row;
    if (id < 0 || id >= table.rows) {
      std::fill(row, row + table.cols, 0.0f);
      return;
    }
    decode_row(
        table.values, table.scales, table.rows, table.cols, table.dtype, table.packing, id, row);
  };
  pool_.parallel_for(out.rows(), row_grain(table.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) one(t);
  });
}

void CpuOps::do_gather_rows(Tensor out, Tensor x, Tensor index) {
  const int64_t cols = out.cols();
  const auto bytes = static_cast<size_t>(cols) * 4;
  pool_.parallel_for(out.rows(), row_grain(cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = index.i32()[i];
      GLM_CHECK(from >= 0 && from < x.rows(), "gather_rows: row {} of {}", from, x.rows());
      if (bytes != 0)
        std::memcpy(out.as<uint8_t>() + i * cols * 4, x.as<uint8_t>() + from * cols * 4, bytes);
    }
  });
}

void CpuOps::do_add(Tensor x, Tensor y) {
  float* to = x.f32();
  const float* from = y.f32();
  pool_.parallel_for(x.elements(), row_grain(1), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

void CpuOps::do_fill_random(const Weight& w, int64_t first, int64_t count, const RandomRows& from) {
  const int64_t line = line_rows(w);
  const int64_t lines = count / line;  // of a matrix
  auto part = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % lines * line;
      fill_random_rows(w, i / lines, {first + row, row, line}, from);
    }
  };
  pool_.parallel_for(w.n_matrices * lines, row_grain(line * w.cols), part);
}

void CpuOps::do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) {
  const int64_t total = out.cols();
  const int64_t n_rows = out.rows();
  int64_t first = 0;
  for (const int64_t width : widths) {
    const float* from = in.f32() + first * n_rows;
    float* to = out.f32() + first;
    pool_.parallel_for(n_rows, row_grain(width), [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t)
        std::copy(from + t * width, from + (t + 1) * width, to + t * total);
    });
    first += width;
  }
}

void CpuOps::do_pad_columns(Tensor out, Tensor in, int64_t first) {
  const int64_t width = out.rows() == 0 ? 0 : in.cols();
  const int64_t total = out.cols();
  pool_.parallel_for(out.rows(), row_grain(total), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* from = in.f32() + t * width;
      float* to = out.f32() + t * total;
      std::fill(to, to + first, 0.0f);
      std::copy(from, from + width, to + first);
      std::fill(to + first + width, to + total, 0.0f);
    }
  });
}

void CpuOps::do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) {
  const int64_t n = x.cols();
  pool_.parallel_for(x.rows(), row_grain(n), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      table_.norm_row(x.f32() + t * n, weight.f32(), n, eps, out.f32() + t * n);
  });
}

void CpuOps::do_head_norm(
    Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) {
  const int64_t width = qkv.cols();
  const int64_t grain = row_grain(int64_t{n_heads} * head_dim);
  pool_.parallel_for(qkv.rows(), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* x = qkv.f32() + t * width + int64_t{first_head} * head_dim;
      for (int head = 0; head < n_heads; ++head, x += head_dim)
        table_.norm_row(x, weight.f32(), head_dim, eps, x);
    }
  });
}

void CpuOps::do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) {
  const int64_t half = inv_freq.elements();
  pool_.parallel_for(out.rows(), row_grain(16 * half), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = out.f32() + t * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(positions.i32()[t]) * inv_freq.f32()[i];
        row[i] = static_cast<float>(std::cos(double{angle}));
        row[half + i] = static_cast<float>(std::sin(double{angle}));
      }
    }
  });
}

void CpuOps::do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) {
  const int64_t half = table.cols() / 2;
  const int64_t step = pairing == RopePairing::kInterleaved ? 2 : 1;
  const int64_t partner = pairing == RopePairing::kInterleaved ? 1 : half;
  const int64_t grain = row_grain((heads.n_heads + heads.n_kv_heads) * 4 * half);
  pool_.parallel_for(qkv.rows(), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cosine = table.f32() + t * 2 * half;
      const float* sine = cosine + half;
      for (int head = 0; head < heads.n_heads + heads.n_kv_heads; ++head) {
        float* v = qkv.f32() + t * heads.row_width() + int64_t{head} * heads.head_dim;
        for (int64_t i = 0; i < half; ++i) {
          const float x = v[i * step];
          const float y = v[i * step + partner];
          v[i * step] = x * cosine[i] - y * sine[i];
          v[i * step + partner] = y * cosine[i] + x * sine[i];
        }
      }
    }
  });
}

}  // namespace glm
