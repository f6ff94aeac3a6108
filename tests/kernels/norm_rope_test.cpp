// Norms and rotary positions. SPDX-License-Identifier: MIT
#include <cmath>

#include "kernels/cases.h"
#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

TEST(RmsNorm, AgreesForAllRemainders) {
  Backends backends;
  for (const int64_t n : {1, 2, 15, 16, 17, 63, 64, 65, 80, 127, 200, 4096, 4099}) {
    SCOPED_TRACE(n);
    Floats x(3, n, 41), weight(1, n, 42), expected(3, n);
    backends.reference().rms_norm(expected.view(), x.view(), weight.vector(), 1e-5f);
    expect_all_agree(backends, 3, n, norm_tolerance(expected.view(), n), [&](Ops& ops, Tensor out) {
      ops.rms_norm(out, x.view(), weight.vector(), 1e-5f);
    });
  }
}

TEST(RmsNorm, ConstantVectorGivesTheSignTimesTheWeight) {
  Backends backends({1});
  for (size_t i = 0; i < backends.size(); ++i) {
    Floats x(2, 96), weight(1, 96, 43);
    for (size_t k = 0; k < 192; ++k) x.data[k] = k < 96 ? 3.0f : -5.0f;
    backends.ops(i).rms_norm(x.view(), x.view(), weight.vector(), 0.0f);  // in place
    for (size_t k = 0; k < 96; ++k) {
      EXPECT_NEAR(x.data[k], weight.data[k], 1e-6);
      EXPECT_NEAR(x.data[96 + k], -weight.data[k], 1e-6);
    }
  }
}

TEST(RmsNorm, WithASumBeforeItIsBothApart) {
  Backends backends;
  for (const int64_t n : {1, 63, 256, 2048, 4099}) {
    Floats x(3, n, 48), y(3, n, 49), weight(1, n, 50);
    on_all(backends, [&](Ops& ops) {
      Floats together = x, apart = x, out(3, n), expected(3, n);
      ops.add_rms_norm(out.view(), together.view(), y.view(), weight.vector(), 1e-5f);
      ops.add(apart.view(), y.view());
      ops.rms_norm(expected.view(), apart.view(), weight.vector(), 1e-5f);
      EXPECT_TRUE(same_bits(together.data, apart.data)) << n;
      EXPECT_TRUE(same_bits(out.data, expected.data)) << n;
    });
  }
}

TEST(HeadNorm, TouchesOnlyItsHeads) {
  Backends backends;
  Floats weight(1, 24, 44);
  const auto run = [&](Ops& ops, Tensor out) {
    const std::vector<float> start = random_values(3 * 7 * 24, 45);
    std::copy(start.begin(), start.end(), out.f32());
    ops.head_norm(out, 2, 3, 24, weight.vector(), 1e-5f);
    for (int64_t t = 0; t < 3; ++t)
      for (const int head : {0, 1, 5, 6})
        for (int64_t i = 0; i < 24; ++i) {
          const int64_t at = (t * 7 + head) * 24 + i;
          ASSERT_EQ(out.f32()[at], start[static_cast<size_t>(at)]);
        }
  };
  Floats expected(3, 7 * 24);
  run(backends.reference(), expected.view());
  expect_all_agree(backends, 3, 7 * 24, norm_tolerance(expected.view(), 24), run);
}

// d = 8, r = 4, theta = 10000, position 1, v = 1..8.
TEST(Rope, GoldenVectors) {
  Backends backends({1});
  const std::vector<float> half{-1.9841f, 1.9599f, 2.4624f, 4.0198f, 5, 6, 7, 8};
  const std::vector<float> interleaved{-1.1426f, 1.9221f, 2.9599f, 4.0298f, 5, 6, 7, 8};
  const HeadLayout heads{1, 1, 8, 1, 0};
  for (size_t i = 0; i <= backends.size(); ++i) {
    Ops& ops = i == backends.size() ? backends.reference() : backends.ops(i);
    for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
      Ints positions({1}, 1);
      Floats inv_freq(1, 2), table(1, 4), qkv(1, 24);
      inv_freq.data = {1.0f, 0.01f};
      for (size_t k = 0; k < 24; ++k) qkv.data[k] = static_cast<float>(k % 8 + 1);
      const Tensor angles = table.view().reshaped({1, 2, 2});
      ops.rope_table(angles, positions.vector(), inv_freq.vector());
      ops.rope(qkv.view(), angles, heads, pairing);
      const auto& expected = pairing == RopePairing::kHalfSplit ? half : interleaved;
      for (size_t k = 0; k < 8; ++k) {
        EXPECT_NEAR(qkv.data[k], expected[k], 5e-5) << ops.name();      // query
        EXPECT_NEAR(qkv.data[8 + k], expected[k], 5e-5) << ops.name();  // key
        EXPECT_EQ(qkv.data[16 + k], static_cast<float>(k + 1));         // value stays
      }
    }
  }
}

TEST(Rope, AgreesForEveryFraction) {
  Backends backends;
  for (const AttentionCase& shape : attention_cases()) {
    const HeadLayout heads = shape.layout();
    for (int64_t turned = 0; turned <= heads.head_dim; turned += heads.head_dim > 8 ? 8 : 2) {
      Floats start(2, heads.row_width(), 46), inv_freq(1, turned / 2, 47), table(2, turned);
      Ints positions({3, 70000}, 1);
      const Tensor angles = table.view().reshaped({2, 2, turned / 2});
      backends.reference().rope_table(angles, positions.vector(), inv_freq.vector());
      for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved})
        expect_all_agree(backends,
                         2,
                         heads.row_width(),
                         rope_tolerance(start.view(), heads),
                         [&](Ops& ops, Tensor out) {
                           std::copy(start.data.begin(), start.data.end(), out.f32());
                           ops.rope(out, angles, heads, pairing);
                         });
    }
  }
}

TEST(RopeTable, LargePositionsKeepTheirAngle) {
  Backends backends({1});
  Ints positions({0, 1, 131071, 1000000}, 1);
  Floats inv_freq(1, 3);
  inv_freq.data = {1.0f, 0.1f, 1e-6f};
  const Tolerances bounds(4 * 6, 0x1p-23);
  expect_all_agree(backends, 4, 6, bounds, [&](Ops& ops, Tensor out) {
    ops.rope_table(out.reshaped({4, 2, 3}), positions.vector(), inv_freq.vector());
    for (int64_t t = 0; t < 4; ++t)
      for (int64_t i = 0; i < 3; ++i) {
        const float angle = static_cast<float>(positions.data[static_cast<size_t>(t)]) *
                            inv_freq.data[static_cast<size_t>(i)];
        EXPECT_NEAR(out.f32()[t * 6 + i], std::cos(double{angle}), 1e-7);
        EXPECT_NEAR(out.f32()[t * 6 + 3 + i], std::sin(double{angle}), 1e-7);
      }
  });
}

}  // namespace
}  // namespace glm::testing
