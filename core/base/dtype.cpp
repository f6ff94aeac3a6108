// SPDX-License-Identifier: MIT
#include "core/base/dtype.h"

#include <array>
#include <cmath>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr std::array<std::string_view, 7> kNames = {
    "f32", "f16", "bf16", "q80", "q40", "i32", "u8"};

}  // namespace

bool is_quantized(DType dtype) { return dtype == DType::kQ80 || dtype == DType::kQ40; }

std::string_view dtype_name(DType dtype) { return kNames.at(static_cast<size_t>(dtype)); }

std::string_view packing_name(Packing packing) {
  return packing == Packing::kRows ? "rows" : "tile16";
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<DType>(i);
  return std::nullopt;
}

std::optional<Packing> parse_packing(std::string_view name) {
  for (const Packing packing : {Packing::kRows, Packing::kTile16})
    if (packing_name(packing) == name) return packing;
  return std::nullopt;
}

int64_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kU8:
      return 1;
    default:
      break;
  }
  fail(ExitCode::kRuntime, "{} has no size per element", dtype_name(dtype));
}

int64_t value_bytes(DType dtype, int64_t rows, int64_t cols) {
  GLM_CHECK(!is_quantized(dtype) || cols % kQuantBlock == 0, "{} columns in blocks of 32", cols);
  if (dtype == DType::kQ40) return rows * cols / 2;
  if (dtype == DType::kQ80) return rows * cols;
  return rows * cols * dtype_size(dtype);
}

int64_t scale_bytes(DType dtype, int64_t rows, int64_t cols) {
  return is_quantized(dtype) ? rows * (cols / kQuantBlock) * 2 : 0;
}

uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1Fu;
  const uint32_t mantissa = bits & 0x3FFu;
  if (exponent == 0x1Fu) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // exact
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds to >= 65520
  if (magnitude <
      0x38800000u) {  // below 2^-14: subnormal, units of 2^-24, rounded to even by the addition
    const float shifted =
        std::bit_cast<float>(magnitude) + 0x1p-1f;  // unit in the last place is 2^-24
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace glm
