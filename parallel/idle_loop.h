// How a rank that waits gives its core away: it polls, then yields, then naps.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

namespace glm {

// What a rank has learned about other programs on its core. Who yields to one stands behind it for
// a whole time slice, who naps is woken ahead of it: two ranks that take turns beside one busy
// program per core need 2.0 ms per turn when they yield and 0.22 ms when they nap; on an idle host
// it is 0.07 and 0.11 (docs/notes/exchange.md).
class CoreRivals {
 public:
  using Clock = std::chrono::steady_clock;
  bool seen(Clock::time_point now) const { return now < until_; }
  void yielded(Clock::time_point before, Clock::time_point after) {
    if (after - before > kSlice) until_ = after + kRemember;
  }

 private:
  // Shorter than a time slice, longer than what a rank of ours computes between two messages of a
  // decode step; a mistake costs the difference above.
  static constexpr std::chrono::milliseconds kSlice{1};
  static constexpr std::chrono::milliseconds kRemember{300};
  Clock::time_point until_{};
};

// Seconds between two polls that still count as waiting. More of them mean that this process itself
// stood still (stopped, suspended), which is no fault of its peers.
inline constexpr double kLongestGap = 0.5;

// One wait. crowded: more ranks than cores on this host, so the rank waited for may need this core.
class IdleLoop {
 public:
  IdleLoop(bool crowded, CoreRivals& rivals);

  // Seconds of waiting since something moved.
  double waited() const { return waited_; }
  void moved();
  void idle();

 private:
  void nap();

  bool crowded_;
  CoreRivals& rivals_;
  double waited_ = 0;
  std::chrono::microseconds nap_;
  CoreRivals::Clock::time_point last_;
};

}  // namespace glm
