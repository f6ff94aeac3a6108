// Encoding and decoding of matrices. SPDX-License-Identifier: MIT
#include <cmath>

#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

std::vector<float> decode(const Matrix& matrix, int64_t row) {
  const Weight& w = matrix.weight();
  std::vector<float> out(static_cast<size_t>(w.cols));
  decode_row(w.values, w.scales, w.rows, w.cols, w.dtype, w.packing, row, out.data());
  return out;
}

TEST(Quantize, Q40FollowsItsFormula) {
  const std::vector<float> values = random_values(16 * 64, 31);
  const Matrix matrix(DType::kQ40, Packing::kRows, 1, 16, 64, values);
  for (int64_t row = 0; row < 16; ++row) {
    const std::vector<float> decoded = decode(matrix, row);
    for (int64_t block = 0; block < 2; ++block) {
      const float* x = values.data() + row * 64 + block * 32;
      float peak = 0;
      for (int i = 0; i < 32; ++i)
        if (std::fabs(x[i]) > std::fabs(peak)) peak = x[i];
      const float d = f16_to_f32(f32_to_f16(peak / -8));
      for (int i = 0; i < 32; ++i) {
        const float q = std::min(15.0f, std::max(0.0f, std::floor(x[i] / d + 8.5f)));
        EXPECT_EQ(decoded[static_cast<size_t>(block * 32 + i)], d * (q - 8));
      }
    }
  }
}

TEST(Quantize, FirstOfEqualPeaksDecides) {
  std::vector<float> values(32, 0.0f);
  values[4] = 1.0f;
  values[9] = -1.0f;
  const std::vector<float> decoded =
      decode(Matrix(DType::kQ40, Packing::kRows, 1, 1, 32, values), 0);
  EXPECT_EQ(decoded[4], 1.0f);
  EXPECT_EQ(decoded[9], -0.875f);
}

TEST(Quantize, Q80ErrorIsHalfAStep) {
  const std::vector<float> values = random_values(16 * 96, 32);
  const Matrix matrix(DType::kQ80, Packing::kTile16, 1, 16, 96, values);
  for (int64_t row = 0; row < 16; ++row) {
    const std::vector<float> decoded = decode(matrix, row);
    for (size_t i = 0; i < 96; ++i) {
      const float x = values[static_cast<size_t>(row * 96) + i];
      EXPECT_LE(std::fabs(decoded[i] - x), 0.5f / 127 * 1.002f) << i;  // blocks peak below 1
    }
  }
}

TEST(Quantize, PackingsHoldTheSameMatrix) {
  for (const DType dtype : {DType::kQ80, DType::kQ40}) {
    const std::vector<float> values = random_values(48 * 160, 33);
    const Matrix rows(dtype, Packing::kRows, 1, 48, 160, values);
    const Matrix tiles(dtype, Packing::kTile16, 1, 48, 160, values);
    for (int64_t row = 0; row < 48; ++row) EXPECT_EQ(decode(rows, row), decode(tiles, row));
  }
}

TEST(Quantize, TileOrderIsTheDocumentedOne) {
  std::vector<float> values(16 * 32);
  for (size_t r = 0; r < 16; ++r)
    for (size_t c = 0; c < 32; ++c)
      values[r * 32 + c] = c == 0 ? -127.0f : static_cast<float>((r * 7 + c) % 100);
  std::vector<int8_t> plane(512);
  std::vector<uint16_t> scales(16);
  encode_rows(values.data(), 16, 32, DType::kQ80, Packing::kTile16, plane.data(), scales.data());
  for (size_t r = 0; r < 16; ++r)
    for (size_t c = 0; c < 32; ++c)
      EXPECT_EQ(plane[(c / 4 * 16 + r) * 4 + c % 4], static_cast<int>(values[r * 32 + c]));
  std::vector<float> small(16 * 32, 0.0f);
  small[5 * 32 + 2] = -8.0f;  // nibble 0, low half
  small[5 * 32 + 18] = 7.0f;  // nibble 15, high half of the same byte
  std::vector<uint8_t> nibbles(256);
  encode_rows(small.data(), 16, 32, DType::kQ40, Packing::kTile16, nibbles.data(), scales.data());
  EXPECT_EQ(nibbles[(0 * 16 + 5) * 4 + 2], 0xF0);
}

TEST(Quantize, PiecesOfSixteenRowsEqualTheWhole) {
  const std::vector<float> values = random_values(64 * 64, 34);
  for (const Format& format : all_formats()) {
    const Matrix whole(format.dtype, format.packing, 1, 64, 64, values);
    Weight w = whole.weight();
    std::vector<uint8_t> plane(static_cast<size_t>(w.value_stride()));
    std::vector<uint8_t> scales(static_cast<size_t>(w.scale_stride()) + 1);
    for (int64_t row = 0; row < 64; row += 16)
      encode_rows(values.data() + row * 64,
                  16,
                  64,
                  format.dtype,
                  format.packing,
                  plane.data() + value_bytes(format.dtype, row, 64),
                  scales.data() + scale_bytes(format.dtype, row, 64));
    EXPECT_EQ(std::memcmp(plane.data(), w.values, plane.size()), 0) << format_name(format);
    EXPECT_EQ(std::memcmp(scales.data(), w.scales, scales.size() - 1), 0) << format_name(format);
  }
}

TEST(Quantize, ZeroSubnormalAndVanishingScales) {
  for (const DType dtype : {DType::kQ80, DType::kQ40}) {
    const float steps = dtype == DType::kQ80 ? 127.0f : 8.0f;
    for (const float peak : {0.0f, 1e-8f * steps, 0x1p-20f * steps, 0x1p-15f * steps}) {
      std::vector<float> values(32, 0.0f);
      values[7] = peak;
      const std::vector<float> decoded = decode(Matrix(dtype, Packing::kRows, 1, 1, 32, values), 0);
      const float d = std::fabs(f16_to_f32(f32_to_f16(peak / steps)));
      for (size_t i = 0; i < 32; ++i) {
        if (i != 7)
          EXPECT_EQ(std::fabs(decoded[i]), 0.0f);
        else
          EXPECT_NEAR(decoded[i], d == 0 ? 0 : peak, d * 0.51f) << peak;
      }
      EXPECT_FALSE(peak == 0 && std::signbit(decoded[7])) << "zero blocks decode to +0";
    }
  }
}

TEST(Quantize, NonFiniteValuesGiveNonFiniteScales) {
  for (const DType dtype : {DType::kQ80, DType::kQ40}) {
    for (const float bad : {HUGE_VALF, -HUGE_VALF, std::nanf("")}) {
      std::vector<float> values = random_values(32, 35);
      values[17] = bad;
      std::vector<uint8_t> plane(32);
      uint16_t scale = 0;
      encode_rows(values.data(), 1, 32, dtype, Packing::kRows, plane.data(), &scale);
      EXPECT_FALSE(std::isfinite(f16_to_f32(scale))) << dtype_name(dtype) << " " << bad;
    }
  }
}

TEST(Quantize, PlainTypesRoundOnce) {
  const std::vector<float> values = random_values(3 * 37, 36);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Matrix matrix(dtype, Packing::kRows, 1, 3, 37, values);
    for (int64_t row = 0; row < 3; ++row) {
      const std::vector<float> decoded = decode(matrix, row);
      for (size_t i = 0; i < 37; ++i) {
        const float x = values[static_cast<size_t>(row) * 37 + i];
        const float expected = dtype == DType::kF32   ? x
                               : dtype == DType::kF16 ? f16_to_f32(f32_to_f16(x))
                                                      : bf16_to_f32(f32_to_bf16(x));
        EXPECT_EQ(decoded[i], expected);
      }
    }
  }
}

TEST(Quantize, ImpossibleShapesAreRefused) {
  std::vector<float> values(16 * 33, 1.0f);
  std::vector<uint8_t> plane(4096);
  std::vector<uint16_t> scales(64);
  EXPECT_THROW(
      encode_rows(values.data(), 16, 33, DType::kQ40, Packing::kRows, plane.data(), scales.data()),
      Error);
  EXPECT_THROW(
      encode_rows(
          values.data(), 15, 32, DType::kQ40, Packing::kTile16, plane.data(), scales.data()),
      Error);
  EXPECT_THROW(
      encode_rows(
          values.data(), 16, 32, DType::kF16, Packing::kTile16, plane.data(), scales.data()),
      Error);
  EXPECT_THROW(
      encode_rows(values.data(), 16, 32, DType::kI32, Packing::kRows, plane.data(), scales.data()),
      Error);
  EXPECT_THROW(
      decode_row(plane.data(), scales.data(), 4, 32, DType::kQ80, Packing::kRows, 4, values.data()),
      Error);
}

}  // namespace
}  // namespace glm::testing
