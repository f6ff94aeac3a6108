// Lists of rows per destination, without any rank. SPDX-License-Identifier: MIT
#include "parallel/row_plan.h"

#include <bit>

#include <gtest/gtest.h>

#include "core/base/check.h"

namespace glm {
namespace {

TEST(ExpertPlacement, EveryExpertHasTheShareThatHoldsIt) {
  for (int experts = 1; experts <= 40; ++experts)
    for (int shares = 1; shares <= 16; ++shares) {
      const ExpertPlacement placement{experts, shares, 1};
      EXPECT_EQ(placement.begin(0), 0);
      EXPECT_EQ(placement.begin(shares), experts);
      for (int expert = 0; expert < experts; ++expert) {
        const int share = placement.share_of(expert);
        EXPECT_LE(placement.begin(share), expert);
        EXPECT_LT(expert, placement.begin(share + 1));
      }
    }
}

TEST(ExpertPlacement, TakesBordersOfUnequalShares) {
  const ExpertPlacement placement({0, 5, 5, 8}, 2);
  EXPECT_EQ(placement.n_experts, 8);
  EXPECT_EQ(placement.n_shares, 3);
  EXPECT_EQ(placement.n_slices, 2);
  EXPECT_EQ(placement.largest(), 5);
  EXPECT_EQ(placement.share_of(4), 0);
  EXPECT_EQ(placement.share_of(5), 2);
}

// Two rows over experts 0-1 | 2-3 | 4-5: row 0 needs the first and the last share, row 1 the last.
class TwoRows : public testing::Test {
 protected:
  RowPlan plan_{ExpertPlacement(6, 3, 1), 2, 2, 6};
  std::vector<int32_t> experts_ = {1, 4, 4, 5};
  std::vector<float> weights_ = {0.5f, 0.25f, 2.0f, 3.0f};
};

TEST_F(TwoRows, SendsARowOncePerDestination) {
  plan_.make(experts_, weights_, 2);
  EXPECT_EQ(plan_.sent(), (std::vector<int64_t>{1, 0, 2}));
  EXPECT_EQ(plan_.n_sent(), 3);
  const std::vector<int32_t> index(plan_.index().begin(), plan_.index().begin() + 3);
  EXPECT_EQ(index, (std::vector<int32_t>{0, 0, 1}));
  EXPECT_EQ(plan_.most_copies(), 2);
  EXPECT_EQ(plan_.copies(), (std::vector<int32_t>{0, 1, 2, -1}));
  // Row 0 at the last share: its first expert is elsewhere.
  EXPECT_EQ(plan_.routing()[4], -1);
  EXPECT_EQ(plan_.routing()[5], 4);
  EXPECT_EQ(std::bit_cast<float>(plan_.routing()[6]), 0.0f);
  EXPECT_EQ(std::bit_cast<float>(plan_.routing()[7]), 0.25f);
}

TEST_F(TwoRows, RefusesMoreThanItWasMadeFor) {
  RowPlan small(ExpertPlacement(6, 3, 1), 2, 2, 2);
  EXPECT_THROW(small.make(experts_, weights_, 2), Error);
}

}  // namespace
}  // namespace glm
