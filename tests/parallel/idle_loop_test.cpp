// SPDX-License-Identifier: MIT
#include "parallel/idle_loop.h"

#include <thread>

#include <gtest/gtest.h>

namespace glm {
namespace {

using std::chrono::milliseconds;

TEST(CoreRivals, AreSeenInLongYieldsAndForgotten) {
  CoreRivals rivals;
  const CoreRivals::Clock::time_point start{std::chrono::hours(1)};
  EXPECT_FALSE(rivals.seen(start));
  rivals.yielded(start, start + std::chrono::microseconds(200));
  EXPECT_FALSE(rivals.seen(start + milliseconds(1)));
  rivals.yielded(start, start + milliseconds(3));
  EXPECT_TRUE(rivals.seen(start + milliseconds(200)));
  EXPECT_FALSE(rivals.seen(start + milliseconds(400)));
}

TEST(IdleLoop, CountsWaitingUntilSomethingMoves) {
  for (const bool crowded : {false, true}) {
    CoreRivals rivals;
    IdleLoop loop(crowded, rivals);
    EXPECT_EQ(loop.waited(), 0);
    const auto start = CoreRivals::Clock::now();
    while (loop.waited() < 0.002) loop.idle();
    EXPECT_GE(CoreRivals::Clock::now() - start, milliseconds(2));
    loop.moved();
    EXPECT_EQ(loop.waited(), 0);
  }
}

// A process that was stopped has not waited all that time for its peers.
TEST(IdleLoop, ALongGapCountsAsHalfASecond) {
  CoreRivals rivals;
  IdleLoop loop(false, rivals);
  std::this_thread::sleep_for(milliseconds(700));
  loop.idle();
  EXPECT_LE(loop.waited(), 0.5);
  EXPECT_GE(loop.waited(), 0.4);
}

}  // namespace
}  // namespace glm
