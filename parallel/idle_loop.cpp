// SPDX-License-Identifier: MIT
#include "parallel/idle_loop.h"

#include <algorithm>
#include <thread>

#include <sched.h>

namespace glm {
namespace {

using Clock = CoreRivals::Clock;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// How long an idle rank only polls, and only yields, before it naps; a nap doubles up to the limit.
constexpr double kSpinSeconds = 20e-6;
constexpr double kYieldSeconds = 300e-6;
constexpr auto kFirstNap = std::chrono::microseconds(5);
constexpr auto kLongestNap = std::chrono::microseconds(80);

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

IdleLoop::IdleLoop(bool crowded, CoreRivals& rivals)
    : crowded_(crowded), rivals_(rivals), nap_(kFirstNap), last_(Clock::now()) {}

void IdleLoop::moved() {
  waited_ = 0;
  nap_ = kFirstNap;
  last_ = Clock::now();
}

void IdleLoop::nap() {
  std::this_thread::sleep_for(nap_);
  nap_ = std::min<std::chrono::microseconds>(2 * nap_, kLongestNap);
}

void IdleLoop::idle() {
  const bool spins = waited_ < kSpinSeconds && !crowded_;
  const bool yields = !spins && waited_ < kYieldSeconds && !rivals_.seen(last_);
  if (spins) {
    relax();
  } else if (yields) {
    sched_yield();
  } else {
    nap();
  }
  const Clock::time_point now = Clock::now();
  if (yields) rivals_.yielded(last_, now);
  waited_ += std::min(seconds(now - last_), kLongestGap);
  last_ = now;
}

}  // namespace glm
