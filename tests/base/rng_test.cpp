// Philox against the known answers of its authors, and what makes it usable by many ranks.
// SPDX-License-Identifier: MIT
#include "core/base/rng.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace glm {
namespace {

using Block = std::array<uint32_t, 4>;

// Random123, kat_vectors, philox4x32 with 10 rounds.
TEST(Rng, PhiloxKnownAnswers) {
  EXPECT_EQ(philox(0, 0), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint64_t ones = ~uint64_t{0};
  EXPECT_EQ(philox(ones, ones, ones), (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, FillDoesNotDependOnItsChunks) {
  constexpr int64_t kCount = 403;
  const uint64_t key = stream_key(1, "chunks");
  std::vector<float> whole(kCount);
  fill_uniform(whole.data(), kCount, key, 0);
  for (const int64_t chunk : {1, 2, 3, 4, 5, 7, 64, 68, 101}) {
    std::vector<float> pieces(kCount);
    for (int64_t i = 0; i < kCount; i += chunk)
      fill_uniform(pieces.data() + i, std::min(chunk, kCount - i), key, i);
    EXPECT_EQ(pieces, whole) << chunk;
  }
}

// First and second moment of 2^16 values within five standard deviations.
TEST(Rng, UniformValuesFillTheUnitInterval) {
  constexpr int64_t kCount = 1 << 16;
  std::vector<float> values(kCount);
  fill_uniform(values.data(), kCount, stream_key(7, "moments"), 0);
  double sum = 0;
  double squares = 0;
  for (const float value : values) {
    ASSERT_GE(value, 0.0f);
    ASSERT_LT(value, 1.0f);
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const double root = std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(sum / kCount, 1.0 / 2, 5 * std::sqrt(1.0 / 12) / root);
  EXPECT_NEAR(squares / kCount, 1.0 / 3, 5 * std::sqrt(4.0 / 45) / root);
}

TEST(Rng, DoublesAreInTheUnitIntervalAndDiffer) {
  std::set<double> seen;
  for (uint64_t i = 0; i < 1000; ++i) {
    const double value = uniform_double(3, i);
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    EXPECT_EQ(value, uniform_double(3, i));
    seen.insert(value);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(Rng, KeysDependOnSeedAndName) {
  std::set<uint64_t> keys;
  for (uint64_t seed = 0; seed < 20; ++seed)
    for (int layer = 0; layer < 20; ++layer)
      keys.insert(stream_key(seed, "layers." + std::to_string(layer) + ".qkv"));
  EXPECT_EQ(keys.size(), 400u);
  EXPECT_EQ(stream_key(5, "head"), stream_key(5, "head"));
}

}  // namespace
}  // namespace glm
