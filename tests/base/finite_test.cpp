// Where NaN and infinities are found in rows of any length. SPDX-License-Identifier: MIT
#include "core/base/finite.h"

#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace glm {
namespace {

TEST(Finite, FindsTheFirstOfAnyKindAnywhere) {
  const float kinds[] = {std::numeric_limits<float>::quiet_NaN(),
                         -std::numeric_limits<float>::quiet_NaN(),
                         std::numeric_limits<float>::signaling_NaN(),
                         std::numeric_limits<float>::infinity(),
                         -std::numeric_limits<float>::infinity()};
  size_t kind = 0;
  for (const size_t size : {1, 7, 1023, 1024, 1025, 5000})
    for (const size_t at : {size_t{0}, size / 2, size - 1}) {
      std::vector<float> values(size, 1.0f);
      EXPECT_EQ(first_not_finite(values), -1);
      values.back() = kinds[kind++ % 5];
      values[at] = kinds[kind++ % 5];
      EXPECT_EQ(first_not_finite(values), static_cast<int64_t>(at)) << size;
    }
}

TEST(Finite, LargeSmallAndNoNumbersAreFine) {
  EXPECT_EQ(first_not_finite({}), -1);
  const float extremes[] = {std::numeric_limits<float>::max(),
                            std::numeric_limits<float>::lowest(),
                            std::numeric_limits<float>::denorm_min(),
                            -0.0f};
  EXPECT_EQ(first_not_finite(extremes), -1);
}

}  // namespace
}  // namespace glm
