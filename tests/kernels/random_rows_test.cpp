// Random weights: a share has the numbers of the whole, and the same bits on every backend.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

constexpr int64_t kAllMatrices = 3;
constexpr int64_t kAllRows = 64;

// A weight that owns its planes, which hold something else before they are filled.
class Filled {
 public:
  Filled(const Format& format, int64_t n_matrices, int64_t rows, int64_t cols) {
    weight_ = {format.dtype, format.packing, n_matrices, rows, cols, nullptr, nullptr};
    values.assign(static_cast<size_t>(n_matrices * weight_.value_stride()), 0xA5);
    scales.assign(static_cast<size_t>(n_matrices * weight_.scale_stride()), 0xA5);
    weight_.values = values.data();
    weight_.scales = scales.data();
  }
  const Weight& weight() const { return weight_; }
  std::vector<float> row(int64_t matrix, int64_t at) const {
    std::vector<float> out(static_cast<size_t>(weight_.cols));
    decode_row(values.data() + matrix * weight_.value_stride(),
               scales.data() + matrix * weight_.scale_stride(),
               weight_.rows,
               weight_.cols,
               weight_.dtype,
               weight_.packing,
               at,
               out.data());
    return out;
  }

  std::vector<uint8_t> values, scales;

 private:
  Weight weight_;
};

RandomRows rows_of(const Format& format, int64_t all_cols) {
  RandomRows rows;
  rows.key = stream_key(5, "random_rows");
  rows.low = -0.7f;
  rows.width = 1.3f;
  rows.rows = kAllRows;
  rows.cols = all_cols;
  rows.alternate = format.packing == Packing::kTile16;
  return rows;
}

// Matrices 1 and 2, stored rows [32, 48) and [0, 16), columns from first_col on.
void fill_share(Ops& ops, const Filled& share, RandomRows rows, int64_t first_col) {
  rows.first_matrix = 1;
  rows.first_col = first_col;
  rows.first_row = 32;
  ops.fill_random(share.weight(), 0, 16, rows);
  rows.first_row = 0;
  ops.fill_random(share.weight(), 16, 16, rows);
}

TEST(FillRandom, AWholeTensorIsItsStreamEncoded) {
  Backends backends({1, 3});
  for (const Format& format : all_formats()) {
    SCOPED_TRACE(format_name(format));
    const RandomRows rows = rows_of(format, 96);
    std::vector<float> stored(static_cast<size_t>(kAllMatrices * kAllRows * 96));
    for (int64_t row = 0; row < kAllMatrices * kAllRows; ++row) {
      // Tiles of gate rows (the first half) and of up rows alternate.
      const int64_t tile = row % kAllRows / 16;
      const int64_t from = row / kAllRows * kAllRows + (tile / 2 + tile % 2 * 2) * 16 + row % 16;
      fill_uniform(stored.data() + row * 96, 96, rows.key, (rows.alternate ? from : row) * 96);
    }
    for (float& x : stored) x = rows.low + rows.width * x;
    const Matrix expected(format.dtype, format.packing, kAllMatrices, kAllRows, 96, stored);
    const Weight& w = expected.weight();
    on_all(backends, [&](Ops& ops) {
      const Filled whole(format, kAllMatrices, kAllRows, 96);
      ops.fill_random(whole.weight(), 0, kAllRows, rows);
      EXPECT_EQ(std::memcmp(whole.values.data(), w.values, whole.values.size()), 0);
      EXPECT_EQ(std::memcmp(whole.scales.data(), w.scales, whole.scales.size()), 0);
    });
  }
}

TEST(FillRandom, AShareHasTheNumbersOfTheWhole) {
  Backends backends({1, 3});
  for (const Format& format : all_formats()) {
    SCOPED_TRACE(format_name(format));
    // Plain columns begin anywhere.
    const bool blocks = is_quantized(format.dtype);
    const int64_t all_cols = blocks ? 96 : 77, first_col = blocks ? 32 : 6, cols = blocks ? 64 : 71;
    const RandomRows rows = rows_of(format, all_cols);
    on_all(backends, [&](Ops& ops) {
      const Filled whole(format, kAllMatrices, kAllRows, all_cols);
      ops.fill_random(whole.weight(), 0, kAllRows, rows);
      const Filled share(format, 2, 32, cols);
      fill_share(ops, share, rows, first_col);
      for (int64_t m = 0; m < 2; ++m)
        for (int64_t row = 0; row < 32; ++row) {
          std::vector<float> wanted = whole.row(m + 1, row < 16 ? 32 + row : row - 16);
          wanted.erase(wanted.begin(), wanted.begin() + first_col);
          EXPECT_TRUE(same_bits(share.row(m, row), wanted)) << m << ", " << row;
        }
    });
  }
}

// Small numbers: scales that are subnormal f16, or zero.
TEST(FillRandom, SameBitsWhereScalesAreTiny) {
  Backends backends({2});
  for (const Format& format : all_formats()) {
    SCOPED_TRACE(format_name(format));
    for (const float width : {0.0f, 1e-3f, 1e-5f, 3e-6f, 1e-7f}) {
      RandomRows rows = rows_of(format, 64);
      rows.low = -0.4f * width;
      rows.width = width;
      Filled expected(format, 1, kAllRows, 64);
      backends.reference().fill_random(expected.weight(), 0, kAllRows, rows);
      for (size_t i = 0; i < backends.size(); ++i) {
        SCOPED_TRACE(backends.name(i));
        const Filled actual(format, 1, kAllRows, 64);
        backends.ops(i).fill_random(actual.weight(), 0, kAllRows, rows);
        EXPECT_EQ(actual.values, expected.values) << width;
        EXPECT_EQ(actual.scales, expected.scales) << width;
      }
    }
  }
}

// Vectors are one column; other rows stay as they are.
TEST(FillRandom, VectorsAndRowsThatAreNotMeant) {
  Backends backends({2});
  on_all(backends, [&](Ops& ops) {
    RandomRows rows;
    rows.key = 9;
    rows.low = 0.9f;
    rows.width = 0.2f;
    rows.rows = 1000;
    rows.cols = 1;
    rows.first_row = 333;
    const Filled part({DType::kF32, Packing::kRows}, 1, 400, 1);
    ops.fill_random(part.weight(), 100, 200, rows);
    std::vector<float> wanted(200);
    fill_uniform(wanted.data(), 200, 9, 333);
    for (size_t i = 0; i < 200; ++i)
      EXPECT_EQ(part.row(0, 100 + static_cast<int64_t>(i))[0], 0.9f + 0.2f * wanted[i]);
    for (size_t i = 0; i < part.values.size(); ++i) {
      if (i >= 400 && i < 1200) continue;
      ASSERT_EQ(part.values[i], 0xA5) << i;
    }
    EXPECT_THROW(ops.fill_random(part.weight(), 300, 101, rows), Error);
    rows.first_row = 900;
    EXPECT_THROW(ops.fill_random(part.weight(), 0, 101, rows), Error);
  });
}

}  // namespace
}  // namespace glm::testing
