// Element types, their sizes and names, conversions of the 16-bit floats, and the byte layout of
// quantised matrices. The quantisation itself is in kernels/quantize.h. SPDX-License-Identifier:
// MIT
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace glm {

enum class DType : uint8_t { kF32, kF16, kBF16, kQ80, kQ40, kI32, kU8 };

// Columns that share one scale in q80 and q40, and rows of a tile.
inline constexpr int64_t kQuantBlock = 32;
inline constexpr int64_t kTileRows = 16;

// Order of a matrix in file and memory (docs/file_format.md).
//   kRows:   row after row. q80: [rows, cols] i8 and scales [rows, cols/32] f16. q40: [rows,
//   cols/2] u8, byte j of a
//            block holds element j (low nibble) and j + 16 (high nibble), and the same scales.
//   kTile16: quantised only, rows % 16 == 0. Tiles of 16 rows x 32 columns, [rows/16, cols/32] of
//   them. Within a tile
//            groups of 4 bytes of each row alternate: value byte (g*16 + r)*4 + i of a tile is byte
//            4g + i of row r (q40: g < 4, 256 bytes; q80: g < 8, 512 bytes). Scales [rows/16,
//            cols/32, 16] f16.
enum class Packing : uint8_t { kRows, kTile16 };

bool is_quantized(DType dtype);
std::string_view dtype_name(DType dtype);
std::string_view packing_name(Packing packing);
std::optional<DType> parse_dtype(std::string_view name);
std::optional<Packing> parse_packing(std::string_view name);

// Bytes of one element; not for quantised types.
int64_t dtype_size(DType dtype);

// Bytes of the value plane and of the scale plane (0 for plain types) of a [rows, cols] matrix,
// either packing. Quantised types need cols % 32 == 0.
int64_t value_bytes(DType dtype, int64_t rows, int64_t cols);
int64_t scale_bytes(DType dtype, int64_t rows, int64_t cols);

inline float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
// Round to nearest even; NaN stays NaN.
uint16_t f32_to_bf16(float value);
// Exact, subnormals included.
float f16_to_f32(uint16_t bits);
// Round to nearest even, overflow to infinity, NaN stays NaN.
uint16_t f32_to_f16(float value);

}  // namespace glm
