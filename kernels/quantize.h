// Quantisation of matrices, defined once for the converter, synthetic models and tests
// (docs/file_format.md), and of activations (docs/numerics.md). SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "core/base/dtype.h"

namespace glm {

// An input block of a quantised product (and a group of a q8 cache) whose largest magnitude is
// below counts as zero: 127 / max|x| must stay finite. Else d = max|x| / 127 and q = x * (127 /
// max|x|), rounded to even. With values that are not finite d is not finite either.
inline constexpr float kSmallestBlock = 0x1p-120f;

// max|x| over n values; NaN if one of them is.
float largest_magnitude(const float* x, int64_t n);

// Encodes rows of f32 into the planes of `dtype`/`packing` (plain types: values only). `in` is
// [rows, cols] row-major; rows % 16 == 0 for tile16. values and scales point to the place of the
// first row; 16-row tiles are whole, so a matrix may be encoded in pieces of 16 rows. Non-finite
// input gives non-finite scales; the converter refuses it before.
//   q40: d = f16(x / -8) of the x of largest magnitude (first of equals), q = clamp(floor(x / d
//   + 8.5), 0, 15) q80: d = f16(max|x| / 127), q = x / d rounded to even, clamped to +-127
void encode_rows(const float* in,
                 int64_t rows,
                 int64_t cols,
                 DType dtype,
                 Packing packing,
                 void* values,
                 void* scales);

// One row of a [rows, cols] matrix as f32.
void decode_row(const void* values,
                const void* scales,
                int64_t rows,
                int64_t cols,
                DType dtype,
                Packing packing,
                int64_t row,
                float* out);

}  // namespace glm
