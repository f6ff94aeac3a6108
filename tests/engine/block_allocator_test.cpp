// Pages are handed out once, come back, and never get lost. SPDX-License-Identifier: MIT
#include "core/engine/block_allocator.h"

#include <set>

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "core/base/rng.h"

namespace glm {
namespace {

TEST(BlockAllocator, HandsOutEachPageOnce) {
  BlockAllocator allocator(10);
  const auto a = allocator.take(4);
  const auto b = allocator.take(6);
  ASSERT_TRUE(a && b);
  std::set<int32_t> all(a->begin(), a->end());
  all.insert(b->begin(), b->end());
  EXPECT_EQ(all.size(), 10u);
  EXPECT_EQ(*all.begin(), 0);
  EXPECT_EQ(*all.rbegin(), 9);
  EXPECT_FALSE(allocator.take(1));
}

TEST(BlockAllocator, GivesNothingRatherThanLess) {
  BlockAllocator allocator(3);
  EXPECT_FALSE(allocator.take(4));
  EXPECT_EQ(allocator.n_free(), 3);
  EXPECT_TRUE(allocator.take(0)->empty());
}

TEST(BlockAllocator, RefusesADoubleRelease) {
  BlockAllocator allocator(3);
  const auto blocks = allocator.take(2);
  allocator.release(*blocks);
  EXPECT_THROW(allocator.release(*blocks), Error);
  EXPECT_THROW(allocator.release({99}), Error);
}

TEST(BlockAllocator, LosesNothingOverManyRounds) {
  BlockAllocator allocator(50);
  std::vector<std::vector<int32_t>> held;
  for (uint64_t i = 0; i < 2000; ++i) {
    const double u = uniform_double(7, i);
    if (u < 0.5 && !held.empty()) {
      allocator.release(held.back());
      held.pop_back();
    } else if (auto blocks = allocator.take(static_cast<int64_t>(u * 10))) {
      held.push_back(*blocks);
    }
    std::set<int32_t> taken;
    size_t count = 0;
    for (const auto& blocks : held) {
      taken.insert(blocks.begin(), blocks.end());
      count += blocks.size();
    }
    ASSERT_EQ(taken.size(), count);
    ASSERT_EQ(allocator.n_free(), 50 - static_cast<int64_t>(count));
  }
}

}  // namespace
}  // namespace glm
