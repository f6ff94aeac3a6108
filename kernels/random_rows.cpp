// SPDX-License-Identifier: MIT
#include "kernels/random_rows.h"

#include <algorithm>

#include "core/base/rng.h"
#include "kernels/quantize.h"

namespace glm {
namespace {

constexpr int64_t kPieceElements = 4096;  // made in the cache, then encoded

}  // namespace

PiecePlace place_of_piece(const Weight& w, int64_t matrix, int64_t row, int64_t col) {
  const int64_t line = line_rows(w);
  const auto at = [&](const void* plane, int64_t stride, int64_t whole, int64_t part) -> void* {
    if (plane == nullptr) return nullptr;
    auto* bytes = static_cast<char*>(const_cast<void*>(plane));
    return bytes + matrix * stride + row / line * whole + part;
  };
  return {at(w.values,
             w.value_stride(),
             value_bytes(w.dtype, line, w.cols),
             value_bytes(w.dtype, line, col)),
          at(w.scales,
             w.scale_stride(),
             scale_bytes(w.dtype, line, w.cols),
             scale_bytes(w.dtype, line, col))};
}

void fill_random_rows(const Weight& w,
                      int64_t matrix,
                      const RowSpan& span,
                      const RandomRows& rows) {
  float piece[kPieceElements];
  const int64_t line = line_rows(w);
  const int64_t most = kPieceElements / line;
  for (int64_t row = 0; row < span.count; row += line) {
    for (int64_t col = 0; col < w.cols; col += most) {
      const int64_t width = std::min(most, w.cols - col);
      for (int64_t r = 0; r < line; ++r)
        fill_uniform(
            piece + r * width, width, rows.key, rows.index(matrix, span.from + row + r) + col);
      for (int64_t i = 0; i < line * width; ++i) piece[i] = rows.low + rows.width * piece[i];
      const PiecePlace place = place_of_piece(w, matrix, span.first + row, col);
      encode_rows(piece, line, width, w.dtype, w.packing, place.values, place.scales);
    }
  }
}

}  // namespace glm
