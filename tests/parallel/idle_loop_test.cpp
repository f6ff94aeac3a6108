// SPDX-License-Identifier: MIT
#include "parallel/idle_loop.h"

#include <thread>

#include <gtest/gtest.h>

namespace glm {
namespace {

using std::chrono::milliseconds;

TEST(CoreRivals, AreSeenInLongPollsAndForgotten) {
  CoreRivals rivals;
  const CoreRivals::Clock::time_point start{std::chrono::hours(1)};
  EXPECT_FALSE(rivals.seen(start));
  rivals.polled(start, start + std::chrono::microseconds(200));
  EXPECT_FALSE(rivals.seen(start + milliseconds(1)));
  rivals.polled(start, start + milliseconds(3));
  EXPECT_TRUE(rivals.seen(start + milliseconds(50)));
  EXPECT_FALSE(rivals.seen(start + milliseconds(60)));
}

TEST(IdleLoop, CountsWaitingUntilSomethingMoves) {
  for (const bool crowded : {false, true}) {
    CoreRivals rivals;
    const auto start = CoreRivals::Clock::now();
    IdleLoop loop(crowded, rivals);
    EXPECT_EQ(loop.waited(), 0);
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
