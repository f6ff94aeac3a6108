// Shares of the cores of this machine. SPDX-License-Identifier: MIT
#include <set>

#include <gtest/gtest.h>

#include "parallel/mpi_session.h"

namespace glm {
namespace {

TEST(CpuShare, OneRankTakesAllCores) {
  const CpuShare share = cpu_share(0, 1);
  EXPECT_FALSE(share.cores.empty());
  EXPECT_EQ(std::set<int>(share.cores.begin(), share.cores.end()).size(), share.cores.size());
}

TEST(CpuShare, RanksDivideTheCores) {
  const size_t all = cpu_share(0, 1).cores.size();
  const auto ranks = static_cast<int>(all);
  std::set<int> seen;
  for (int rank = 0; rank < ranks; ++rank)
    for (const int core : cpu_share(rank, ranks).cores)
      EXPECT_TRUE(seen.insert(core).second) << "core " << core << " given twice";
  EXPECT_EQ(seen.size(), all);
  EXPECT_FALSE(ranks_exceed_cores(ranks));
}

TEST(CpuShare, MoreRanksThanCoresGetOneEach) {
  const auto ranks = static_cast<int>(3 * cpu_share(0, 1).cores.size() + 1);
  for (int rank = 0; rank < ranks; ++rank) EXPECT_EQ(cpu_share(rank, ranks).cores.size(), 1u);
  EXPECT_TRUE(ranks_exceed_cores(ranks));
  if (cpu_share(0, 1).cores.size() > 1) {
    // Neighbours work at the same time.
    EXPECT_NE(cpu_share(0, ranks).cores, cpu_share(1, ranks).cores);
  }
}

TEST(CpuShare, BindingNarrowsTheMask) {
  const std::vector<int> before = cpu_share(0, 1).cores;
  bind_process({before.back()});
  const std::vector<int> narrow = cpu_share(0, 1).cores;
  bind_process(before);
  // Under a launcher its own cores count; else the mask of this process.
  EXPECT_TRUE(narrow == std::vector<int>{before.back()} || narrow == before);
  EXPECT_EQ(cpu_share(0, 1).cores, before);
}

TEST(CpuShare, CoresThatDoNotExistAreRefused) {
  EXPECT_THROW(bind_process({8191}), Error);
  EXPECT_THROW(bind_process({-1}), Error);
  EXPECT_THROW(cpu_share(2, 2), Error);
}

}  // namespace
}  // namespace glm
