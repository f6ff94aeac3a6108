// Random weights: every element is a function of a key and of its place in the whole tensor, so
// that any share of it can be made anywhere (core/base/rng.h). SPDX-License-Identifier: MIT
#pragma once

#include "kernels/types.h"

namespace glm {

// Which numbers a weight takes. Element (m, r, c) of the whole tensor [matrices, rows, cols] is low
// + width * u in f32, u value number (m * rows + r) * cols + c of the stream `key` of
// fill_uniform(). What is filled begins at (first_matrix, first_row, first_col) of the stored
// tensor.
struct RandomRows {
  uint64_t key = 0;
  float low = 0.0f;
  float width = 0.0f;
  int64_t rows = 0;
  int64_t cols = 0;
  // Stored tiles of gate and up rows alternate, while in the stream all gate rows come first.
  bool alternate = false;
  int64_t first_matrix = 0;
  int64_t first_row = 0;
  int64_t first_col = 0;

  // Row of the stream of a stored row.
  int64_t stream_row(int64_t stored) const {
    if (!alternate) return stored;
    const int64_t tile = stored / kTileRows;
    return tile / 2 * kTileRows + (tile % 2 == 0 ? 0 : rows / 2) + stored % kTileRows;
  }
  // Number in the stream of local column 0 of a row: `matrix` counts from first_matrix, `row` from
  // first_row.
  int64_t index(int64_t matrix, int64_t row) const {
    return ((first_matrix + matrix) * rows + stream_row(first_row + row)) * cols + first_col;
  }
};

// Rows of a weight that are encoded together: those of a tile, or one.
inline int64_t line_rows(const Weight& w) { return w.packing == Packing::kTile16 ? kTileRows : 1; }

// Where the piece of a weight that begins at (matrix, row, col) stands; row and col at the border
// of a tile or block. The weight's memory belongs to the caller, who fills it.
struct PiecePlace {
  void* values;
  void* scales;
};
PiecePlace place_of_piece(const Weight& w, int64_t matrix, int64_t row, int64_t col);

// Rows [first, first + count) of one matrix of w, which are rows [from, from + count) behind
// rows.first_row; count is a multiple of line_rows(w).
struct RowSpan {
  int64_t first = 0;
  int64_t from = 0;
  int64_t count = 0;
};
void fill_random_rows(const Weight& w, int64_t matrix, const RowSpan& span, const RandomRows& rows);

}  // namespace glm
