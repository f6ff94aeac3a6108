// Names and sizes of the element types; conversions of the 16-bit floats, exhaustive where
// possible. SPDX-License-Identifier: MIT
#include "core/base/dtype.h"

#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint16_t kSign = 0x8000;
constexpr uint16_t kF16Infinity = 0x7C00;
constexpr uint16_t kBf16Infinity = 0x7F80;

float bits_to_f32(uint32_t bits) { return std::bit_cast<float>(bits); }

uint16_t bits16(uint32_t bits) { return static_cast<uint16_t>(bits); }

TEST(DType, NamesRoundTrip) {
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ80, DType::kQ40, DType::kI32, DType::kU8})
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  for (const Packing packing : {Packing::kRows, Packing::kTile16})
    EXPECT_EQ(parse_packing(packing_name(packing)), packing);
  EXPECT_EQ(parse_dtype("F32"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
  EXPECT_EQ(parse_packing("tile"), std::nullopt);
}

TEST(DType, BytesOfMatrices) {
  EXPECT_EQ(value_bytes(DType::kF32, 3, 5), 60);
  EXPECT_EQ(value_bytes(DType::kBF16, 3, 5), 30);
  EXPECT_EQ(scale_bytes(DType::kF16, 3, 5), 0);
  // 4.5 and 8.5 bits per weight.
  EXPECT_EQ(value_bytes(DType::kQ40, 16, 64), 512);
  EXPECT_EQ(value_bytes(DType::kQ80, 16, 64), 1024);
  EXPECT_EQ(scale_bytes(DType::kQ40, 16, 64), 64);
  EXPECT_EQ(scale_bytes(DType::kQ80, 16, 64), 64);
  EXPECT_THROW(value_bytes(DType::kQ40, 16, 48), Error);
  EXPECT_THROW(dtype_size(DType::kQ80), Error);
}

// The value of finite f16 bits by the definition of the format, in double.
double f16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1F;
  const int mantissa = bits & 0x3FF;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits & kSign) != 0 ? -magnitude : magnitude;
}

TEST(Float16, AllBitsRoundTripAndAreExact) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const uint16_t bits = bits16(i);
    const float value = f16_to_f32(bits);
    if ((bits & 0x7C00) == kF16Infinity && (bits & 0x3FF) != 0) {
      ASSERT_TRUE(std::isnan(value)) << i;
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value)))) << i;
      continue;
    }
    ASSERT_EQ(f32_to_f16(value), bits) << i;
    ASSERT_EQ(std::signbit(value), (bits & kSign) != 0) << i;
    if ((bits & 0x7C00) == kF16Infinity) {
      ASSERT_TRUE(std::isinf(value)) << i;
    } else {
      ASSERT_EQ(static_cast<double>(value), f16_value(bits)) << i;
    }
  }
}

// Between each pair of neighbours: the midpoint goes to the even one, its f32 neighbours to the
// nearer one. Subnormals and the step to infinity are among them.
TEST(Float16, MidpointsRoundToEven) {
  for (uint16_t low = 0; low < kF16Infinity; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    const double next = high == kF16Infinity ? 65536.0 : f16_value(high);
    const auto middle = static_cast<float>((f16_value(low) + next) / 2);  // exact: one bit more
    const uint16_t even = (low & 1) == 0 ? low : high;
    ASSERT_EQ(f32_to_f16(middle), even) << low;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), low) << low;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, kInfinity)), high) << low;
    ASSERT_EQ(f32_to_f16(-middle), even | kSign) << low;
  }
}

TEST(Float16, ExtremesOfF32) {
  EXPECT_EQ(f32_to_f16(kInfinity), kF16Infinity);
  EXPECT_EQ(f32_to_f16(-kInfinity), kF16Infinity | kSign);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::max()), kF16Infinity);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(f32_to_f16(-0.0f), kSign);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(bits_to_f32(0x7F800001)))));  // payload in low bits
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(bits_to_f32(0xFFFFFFFF)))));
}

TEST(BFloat16, AllBitsRoundTrip) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const float value = bf16_to_f32(bits16(i));
    ASSERT_EQ(std::bit_cast<uint32_t>(value), i << 16);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value)))) << i;
    } else {
      ASSERT_EQ(f32_to_bf16(value), i);
    }
  }
}

TEST(BFloat16, MidpointsRoundToEven) {
  for (uint32_t low = 0; low < kBf16Infinity; ++low) {
    const uint32_t middle = (low << 16) | 0x8000u;
    const uint32_t even = (low & 1) == 0 ? low : low + 1;
    ASSERT_EQ(f32_to_bf16(bits_to_f32(middle)), even) << low;
    ASSERT_EQ(f32_to_bf16(bits_to_f32(middle - 1)), low) << low;
    ASSERT_EQ(f32_to_bf16(bits_to_f32(middle + 1)), low + 1) << low;
    ASSERT_EQ(f32_to_bf16(bits_to_f32(middle | 0x80000000u)), even | kSign) << low;
  }
}

TEST(BFloat16, ExtremesOfF32) {
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), kBf16Infinity);
  EXPECT_EQ(f32_to_bf16(-kInfinity), kBf16Infinity | kSign);
  for (const uint32_t nan : {0x7F800001u, 0x7FFFFFFFu, 0xFF800001u, 0xFFFFFFFFu})
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(bits_to_f32(nan))))) << nan;
}

#ifdef __FLT16_MANT_DIG__
// The compiler's own half type as a second opinion, over f32 bits spread evenly.
TEST(Float16, AgreesWithTheCompiler) {
  constexpr uint32_t kStep = 4099;  // prime: all low bits occur
  for (uint64_t i = 0; i < (uint64_t{1} << 32); i += kStep) {
    const float value = bits_to_f32(static_cast<uint32_t>(i));
    if (std::isnan(value)) continue;
    __extension__ const auto half = static_cast<_Float16>(value);
    ASSERT_EQ(f32_to_f16(value), std::bit_cast<uint16_t>(half)) << i;
  }
}
#endif

}  // namespace
}  // namespace glm
