// Products with matrices: CPU against reference, equal bits on every level, independence of rows.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cases.h"
#include "kernels/shards.h"
#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

// Where time is short, the widest matrices are left to the formats that large models have.
bool worth_it(const Backends& backends, const ProductCase& shape, const Format& format) {
  const bool rare = format.dtype == DType::kF32 || format.dtype == DType::kF16;
  return backends.thorough() || shape.cols <= 4096 || !rare;
}

class Product : public ::testing::TestWithParam<ProductCase> {};

TEST_P(Product, LinearAgreesForEveryFormat) {
  Backends backends;
  const ProductCase& shape = GetParam();
  const int64_t rows = std::min<int64_t>(shape.rows, 48);
  for (const Format& format : all_formats()) {
    if (format.packing == Packing::kTile16 && rows % kTileRows != 0) continue;
    if (!worth_it(backends, shape, format)) continue;
    SCOPED_TRACE(format_name(format));
    const Matrix matrix(format.dtype, format.packing, 1, rows, shape.cols, 1);
    Floats bias(1, rows, 2);
    for (const int64_t inputs : {0, 1, 5, 17}) {
      if (inputs == 1 && shape.cols > 10000 && !backends.thorough()) continue;
      Floats x(inputs, shape.cols, 3);
      const Tensor b = inputs == 5 ? bias.vector() : Tensor{};
      expect_all_agree(
          backends,
          inputs,
          rows,
          linear_tolerance(x.view(), matrix.weight(), 0, b),
          [&](Ops& ops, Tensor out) { ops.linear(out, x.view(), matrix.weight(), b); },
          format.dtype);
    }
  }
}

TEST_P(Product, GateUpAgreesForEveryFormat) {
  Backends backends;
  const ProductCase& shape = GetParam();
  const int64_t width = std::min<int64_t>(shape.rows, 32);
  for (const Format& format : all_formats()) {
    if (format.packing == Packing::kTile16 && width % kTileRows != 0) continue;
    if (!worth_it(backends, shape, format)) continue;
    SCOPED_TRACE(format_name(format));
    const Matrix matrix(format.dtype, format.packing, 1, 2 * width, shape.cols, 4);
    for (const int64_t inputs : {1, 3}) {
      Floats x(inputs, shape.cols, 5);
      expect_all_agree(
          backends,
          inputs,
          width,
          gate_up_tolerance(x.view(), matrix.weight(), 0),
          [&](Ops& ops, Tensor out) { ops.gate_up(out, x.view(), matrix.weight()); },
          format.dtype);
    }
  }
}

// Tests cut rows, after which some cases are the same.
std::vector<ProductCase> distinct_product_cases() {
  std::vector<ProductCase> distinct;
  for (const ProductCase& shape : product_cases()) {
    const auto same = [&](const ProductCase& other) {
      return other.cols == shape.cols &&
             std::min<int64_t>(other.rows, 48) == std::min<int64_t>(shape.rows, 48);
    };
    if (std::none_of(distinct.begin(), distinct.end(), same)) distinct.push_back(shape);
  }
  return distinct;
}

std::string product_case_name(const ::testing::TestParamInfo<ProductCase>& info) {
  return "rows" + std::to_string(info.param.rows) + "cols" + std::to_string(info.param.cols);
}
INSTANTIATE_TEST_SUITE_P(Cases,
                         Product,
                         ::testing::ValuesIn(distinct_product_cases()),
                         product_case_name);

// Column counts that are no multiple of 32 are stored plain; every remainder of 16 occurs.
TEST(PlainProduct, EveryRemainderOfColumns) {
  Backends backends({1});
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t cols = 0; cols <= 49; ++cols) {
      SCOPED_TRACE(fmt::format("{} x {}", dtype_name(dtype), cols));
      const Matrix matrix(dtype, Packing::kRows, 1, 5, cols, 6);
      Floats x(6, cols, 7);
      expect_all_agree(
          backends,
          6,
          5,
          linear_tolerance(x.view(), matrix.weight(), 0, {}),
          [&](Ops& ops, Tensor out) { ops.linear(out, x.view(), matrix.weight()); },
          dtype);
    }
  }
}

// The definition written out once more, for one row: what all levels must give to the bit.
float defined_product(const float* weights, const float* x, int64_t cols) {
  const int64_t shard = shard_cols(cols);
  float y = 0.0f;
  for (int64_t begin = 0; begin < cols; begin += shard) {
    float sums[16] = {};
    for (int64_t k = begin; k < std::min(cols, begin + shard); ++k)
      sums[(k - begin) % 16] = std::fma(weights[k], x[k], sums[(k - begin) % 16]);
    for (int step = 8; step > 0; step /= 2)
      for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
    y = begin == 0 ? sums[0] : y + sums[0];
  }
  return y;
}

TEST(PlainProduct, FollowsTheDefinitionToTheBit) {
  Backends backends({1});
  for (const int64_t cols : {16, 1408, 4096, 10944, 3001}) {
    const std::vector<float> weights = random_values(3 * cols, 8);
    const Matrix matrix(DType::kF32, Packing::kRows, 1, 3, cols, weights);
    Floats x(1, cols, 9);
    for (size_t i = 0; i < backends.size(); ++i) {
      Floats out(1, 3);
      backends.ops(i).linear(out.view(), x.view(), matrix.weight());
      for (int64_t r = 0; r < 3; ++r)
        EXPECT_EQ(out.data[static_cast<size_t>(r)],
                  defined_product(weights.data() + r * cols, x.data.data(), cols))
            << backends.name(i) << " " << cols;
    }
  }
}

TEST(QuantizedProduct, FollowsTheDefinitionToTheBit) {
  Backends backends({1});
  for (const DType dtype : {DType::kQ80, DType::kQ40}) {
    for (const int64_t cols : {32, 352, 4096, 10944}) {
      const Matrix matrix(dtype, Packing::kRows, 1, 16, cols, 10);
      const Weight& w = matrix.weight();
      Floats x(1, cols, 11);
      const int64_t shard = shard_cols(cols) / kQuantBlock;
      std::vector<float> row(static_cast<size_t>(cols));
      const auto* scales = static_cast<const uint16_t*>(w.scales);
      Floats expected(1, 16);
      for (int64_t r = 0; r < 16; ++r) {
        decode_row(w.values, w.scales, 16, cols, dtype, Packing::kRows, r, row.data());
        float y = 0.0f;
        float p = 0.0f;
        const int64_t blocks = cols / kQuantBlock;
        for (int64_t b = 0; b < blocks; ++b) {
          const float* block = x.data.data() + b * kQuantBlock;
          float top = 0.0f;
          for (int i = 0; i < 32; ++i) top = std::max(top, std::fabs(block[i]));
          const float d = f16_to_f32(scales[r * blocks + b]);
          int sum = 0;
          for (int i = 0; i < 32; ++i)
            sum += static_cast<int>(std::nearbyint(block[i] * (127.0f / top))) *
                   static_cast<int>(row[static_cast<size_t>(b * kQuantBlock + i)] / d);
          if (b % shard == 0) p = 0.0f;
          p = std::fma(d * (top / 127.0f), static_cast<float>(sum), p);
          if ((b + 1) % shard == 0 || b + 1 == blocks) y = b < shard ? p : y + p;
        }
        expected.data[static_cast<size_t>(r)] = y;
      }
      for (size_t i = 0; i < backends.size(); ++i) {
        Floats out(1, 16);
        backends.ops(i).linear(out.view(), x.view(), w);
        EXPECT_TRUE(same_bits(out.data, expected.data)) << backends.name(i) << " " << cols;
      }
    }
  }
}

// Integer paths saturate only at the extremes, which random data does not reach.
TEST(QuantizedProduct, LargestProductsDoNotSaturate) {
  Backends backends({1});
  const int64_t cols = 128;
  for (const Format& format : all_formats()) {
    if (!is_quantized(format.dtype)) continue;
    for (const int pattern : {0, 1, 2, 3}) {
      SCOPED_TRACE(format_name(format) + " pattern " + std::to_string(pattern));
      std::vector<float> values(static_cast<size_t>(16 * cols));
      Floats x(1, cols);
      for (int64_t k = 0; k < cols; ++k) {
        const float sign = pattern & 1 && k % 2 == 1 ? -1.0f : 1.0f;
        x.data[static_cast<size_t>(k)] = pattern & 2 ? -sign : sign;
        // q40: -8 comes from the largest magnitude, +7 from the others of the opposite sign.
        for (int64_t r = 0; r < 16; ++r)
          values[static_cast<size_t>(r * cols + k)] =
              (k % 32 == 0 ? -8.0f : 7.0f) * (r % 2 ? 1 : -1);
      }
      const Matrix matrix(format.dtype, format.packing, 1, 16, cols, values);
      expect_all_agree(backends,
                       1,
                       16,
                       linear_tolerance(x.view(), matrix.weight(), 0, {}),
                       [&](Ops& ops, Tensor out) { ops.linear(out, x.view(), matrix.weight()); });
    }
  }
}

// q80 planes may hold -128, though our encoder never writes it.
TEST(QuantizedProduct, SmallestByteIsExact) {
  Backends backends({1});
  std::vector<int8_t> values(16 * 32, int8_t{-128});
  std::vector<uint16_t> scales(16, f32_to_f16(1.0f));
  for (const Packing packing : {Packing::kRows, Packing::kTile16}) {
    const Weight w{DType::kQ80, packing, 1, 16, 32, values.data(), scales.data()};
    for (const float sign : {1.0f, -1.0f}) {
      Floats x(1, 32);
      for (float& value : x.data) value = 127 * sign;
      for (size_t i = 0; i < backends.size(); ++i) {
        Floats out(1, 16);
        backends.ops(i).linear(out.view(), x.view(), w);
        for (const float y : out.data) EXPECT_EQ(y, -128.0f * 127 * 32 * sign) << backends.name(i);
      }
    }
  }
}

TEST(QuantizedProduct, ZeroTinyAndNonFiniteInputs) {
  Backends backends({1});
  const Matrix matrix(DType::kQ40, Packing::kTile16, 1, 16, 64, 12);
  for (size_t i = 0; i < backends.size(); ++i) {
    SCOPED_TRACE(backends.name(i));
    for (const float value : {0.0f, 0x1p-149f, 0x1p-126f}) {
      Floats x(1, 64);
      x.data[3] = value;
      Floats out(1, 16);
      backends.ops(i).linear(out.view(), x.view(), matrix.weight());
      for (const float y : out.data) EXPECT_EQ(y, 0.0f);
    }
    for (const float value : {HUGE_VALF, -HUGE_VALF, std::nanf("")}) {
      Floats x(1, 64, 13);
      x.data[40] = value;
      Floats out(1, 16);
      backends.ops(i).linear(out.view(), x.view(), matrix.weight());
      for (const float y : out.data) EXPECT_FALSE(std::isfinite(y)) << "swallowed " << value;
    }
  }
}

TEST(Products, RowsDependOnNeitherNeighboursNorThreads) {
  Backends backends({1, 2, 3, 8});
  for (const Format& format : all_formats()) {
    const Matrix matrix(format.dtype, format.packing, 1, 32, 1408, 14);
    Floats x(17, 1408, 15);
    Floats together(17, 32);
    backends.ops(0).linear(together.view(), x.view(), matrix.weight());
    for (size_t i = 0; i < backends.size(); ++i) {
      SCOPED_TRACE(format_name(format) + " " + backends.name(i));
      if (!backends.same_product_bits(i, format.dtype)) continue;
      for (const int64_t chunk : {1, 4, 9, 17}) {
        Floats apart(17, 32);
        for (int64_t t = 0; t < 17; t += chunk) {
          const int64_t n = std::min(chunk, 17 - t);
          backends.ops(i).linear(apart.view().slice(t, n), x.view().slice(t, n), matrix.weight());
        }
        EXPECT_TRUE(same_bits(apart.data, together.data)) << "chunks of " << chunk;
      }
    }
  }
}

// More inputs than any kernel takes at once, and rows that fill no tile.
TEST(Products, ManyRows) {
  Backends backends({2});
  for (const Format& format : all_formats()) {
    SCOPED_TRACE(format_name(format));
    const int64_t rows = format.packing == Packing::kTile16 ? 96 : 90;
    const Matrix matrix(format.dtype, format.packing, 1, rows, 160, 16);
    Floats x(139, 160, 17), bias(1, rows, 18);
    expect_all_agree(
        backends,
        139,
        rows,
        linear_tolerance(x.view(), matrix.weight(), 0, bias.vector()),
        [&](Ops& ops, Tensor out) { ops.linear(out, x.view(), matrix.weight(), bias.vector()); },
        format.dtype);
    expect_all_agree(
        backends,
        139,
        rows / 2,
        gate_up_tolerance(x.view(), matrix.weight(), 0),
        [&](Ops& ops, Tensor out) { ops.gate_up(out, x.view(), matrix.weight()); },
        format.dtype);
  }
}

TEST(Products, EmptyShares) {
  Backends backends({2});
  const Matrix no_rows(DType::kQ40, Packing::kTile16, 1, 0, 64, 1);
  const Matrix no_cols(DType::kQ40, Packing::kTile16, 1, 16, 0, 1);
  for (size_t i = 0; i < backends.size(); ++i) {
    Floats x(2, 64, 1), nothing(2, 0), out(2, 16, 5);
    backends.ops(i).linear(nothing.view(), x.view(), no_rows.weight());
    backends.ops(i).gate_up(nothing.view(), x.view(), no_rows.weight());
    backends.ops(i).linear(out.view(), nothing.view(), no_cols.weight());
    EXPECT_EQ(out.data, std::vector<float>(32, 0.0f));
  }
}

TEST(Products, WrongShapesAreRefused) {
  Backends backends({1});
  const Matrix matrix(DType::kF32, Packing::kRows, 1, 16, 32, 1);
  Floats x(2, 31), out(2, 16), wide(2, 17), good(2, 32);
  EXPECT_THROW(backends.fastest().linear(out.view(), x.view(), matrix.weight()), Error);
  EXPECT_THROW(backends.fastest().linear(wide.view(), good.view(), matrix.weight()), Error);
  EXPECT_THROW(backends.fastest().linear(out.view(), good.view(), matrix.weight(), wide.vector()),
               Error);
  Weight odd = matrix.weight();
  odd.packing = Packing::kTile16;
  EXPECT_THROW(backends.fastest().linear(out.view(), good.view(), odd), Error);
}

TEST(Shards, CoverTheColumnsInMultiplesOf32) {
  EXPECT_EQ(shard_cols(4096), 1024);
  EXPECT_EQ(shard_cols(12288), 1536);
  EXPECT_EQ(shard_cols(1408), 352);
  EXPECT_EQ(shard_cols(10944), 608);
  for (int64_t cols = 1; cols < 20000; cols += 7) {
    const int64_t shard = shard_cols(cols);
    EXPECT_EQ(shard % 32, 0);
    EXPECT_LE(shard, 1536);
    EXPECT_GT(shard, 0);
  }
}

}  // namespace
}  // namespace glm::testing
