// How a rank that waits treats its core: alone there it polls, with others it yields, then naps.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

namespace glm {

// What a rank has learned about other programs on its core: between two polls it stood still for a
// time slice of theirs. Who naps is woken ahead of them, and leaves them their time.
class CoreRivals {
 public:
  using Clock = std::chrono::steady_clock;
  bool seen(Clock::time_point now) const { return now < until_; }
  void polled(Clock::time_point before, Clock::time_point after) {
    if (after - before > kSlice) until_ = after + kRemember;
  }

 private:
  // Shorter than a time slice, longer than a poll that copies a large message.
  static constexpr std::chrono::milliseconds kSlice{2};
  static constexpr std::chrono::milliseconds kRemember{50};
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
