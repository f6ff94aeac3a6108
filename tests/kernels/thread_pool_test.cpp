// SPDX-License-Identifier: MIT
#include "kernels/cpu/thread_pool.h"

#include <array>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace glm {
namespace {

class Pool : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(Pool, EveryItemOnceWhateverTheGrain) {
  ThreadPool pool(GetParam().first, GetParam().second);
  for (const int64_t n : {0, 1, 2, 17, 1000}) {
    for (const int64_t grain : {1, 3, 999, 5000}) {
      std::vector<int> counts(static_cast<size_t>(n), 0);
      pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, pool.threads());
        for (int64_t i = begin; i < end; ++i) ++counts[static_cast<size_t>(i)];
      });
      EXPECT_EQ(counts, std::vector<int>(static_cast<size_t>(n), 1));
    }
  }
}

TEST_P(Pool, ManyShortJobsInARow) {
  ThreadPool pool(GetParam().first, GetParam().second);
  std::vector<int64_t> cells(16);
  for (int round = 0; round < 500; ++round)
    pool.parallel_for(16, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) cells[static_cast<size_t>(i)] += i;
    });
  for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(cells[static_cast<size_t>(i)], 500 * i);
}

TEST_P(Pool, ExceptionsReachTheCallerAndThePoolLives) {
  ThreadPool pool(GetParam().first, GetParam().second);
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(pool.parallel_for(100,
                                   1,
                                   [](int64_t begin, int64_t end, int) {
                                     if (begin <= 50 && 50 < end) throw std::runtime_error("50");
                                   }),
                 std::runtime_error);
  }
  std::atomic<int64_t> sum = 0;
  pool.parallel_for(10, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) sum += i;
  });
  EXPECT_EQ(sum.load(), 45);
}

// A matrix is read as one run of memory per thread.
TEST(PoolParts, AThreadBeginsWithItsOwn) {
  ThreadPool pool(2);
  std::atomic<int> inside = 0;
  std::array<std::vector<int64_t>, 2> taken;
  pool.parallel_for(6, 1, [&](int64_t begin, int64_t, int thread) {
    std::vector<int64_t>& mine = taken[static_cast<size_t>(thread)];
    mine.push_back(begin);
    if (mine.size() > 1) return;
    ++inside;  // nobody goes on before both have begun
    while (inside < 2) std::this_thread::yield();
  });
  EXPECT_EQ(taken[0].front(), 0);
  EXPECT_EQ(taken[1].front(), 3);
  EXPECT_EQ(taken[0].size() + taken[1].size(), 6u);
}

INSTANTIATE_TEST_SUITE_P(ThreadsAndSpin,
                         Pool,
                         ::testing::Values(std::pair{1, -1},
                                           std::pair{2, -1},
                                           std::pair{2, 0},
                                           std::pair{3, 20},
                                           std::pair{8, 0}));

}  // namespace
}  // namespace glm
