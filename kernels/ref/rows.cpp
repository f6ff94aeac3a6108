// Operations that move or add whole rows. SPDX-License-Identifier: MIT
#include <vector>

#include "core/base/rng.h"
#include "kernels/quantize.h"
#include "kernels/ref/ref_ops.h"

namespace glm {

void RefOps::do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) {
  for (int64_t t = 0; t < out.rows(); ++t) {
    float* row = out.f32() + t * table.cols;
    const int64_t id = ids.i32()[t] - first_row;
    if (id >= 0 && id < table.rows) {
      decode_row(
          table.values, table.scales, table.rows, table.cols, table.dtype, table.packing, id, row);
    } else {
      for (int64_t c = 0; c < table.cols; ++c) row[c] = 0.0f;
    }
  }
}

void RefOps::do_gather_rows(Tensor out, Tensor x, Tensor index) {
  const int64_t cols = out.cols();
  for (int64_t i = 0; i < out.rows(); ++i) {
    const int64_t from = index.i32()[i];
    GLM_CHECK(from >= 0 && from < x.rows(), "gather_rows: row {} of {}", from, x.rows());
    for (int64_t c = 0; c < cols; ++c) {
      if (x.dtype == DType::kF32)
        out.f32()[i * cols + c] = x.f32()[from * cols + c];
      else
        out.i32()[i * cols + c] = x.i32()[from * cols + c];
    }
  }
}

void RefOps::do_add(Tensor x, Tensor y) {
  for (int64_t i = 0; i < x.elements(); ++i) x.f32()[i] += y.f32()[i];
}

// A line (a row, or the rows of a tile) at a time, each number on its own.
void RefOps::do_fill_random(const Weight& w, int64_t first, int64_t count, const RandomRows& from) {
  const int64_t line = line_rows(w);
  std::vector<float> x(static_cast<size_t>(line * w.cols));
  for (int64_t m = 0; m < w.n_matrices; ++m) {
    for (int64_t row = 0; row < count; row += line) {
      for (int64_t i = 0; i < line * w.cols; ++i) {
        float u = 0;
        fill_uniform(&u, 1, from.key, from.index(m, row + i / w.cols) + i % w.cols);
        x[static_cast<size_t>(i)] = from.low + from.width * u;
      }
      const PiecePlace place = place_of_piece(w, m, first + row, 0);
      encode_rows(x.data(), line, w.cols, w.dtype, w.packing, place.values, place.scales);
    }
  }
}

void RefOps::do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) {
  const int64_t total = out.cols();
  const float* from = in.f32();
  int64_t first = 0;
  for (const int64_t width : widths) {
    for (int64_t t = 0; t < out.rows(); ++t)
      for (int64_t c = 0; c < width; ++c) out.f32()[t * total + first + c] = *from++;
    first += width;
  }
}

void RefOps::do_pad_columns(Tensor out, Tensor in, int64_t first) {
  for (int64_t t = 0; t < out.rows(); ++t) {
    for (int64_t c = 0; c < out.cols(); ++c) {
      const int64_t from = c - first;
      const bool inside = from >= 0 && from < in.cols();
      out.f32()[t * out.cols() + c] = inside ? in.f32()[t * in.cols() + from] : 0.0f;
    }
  }
}

}  // namespace glm
