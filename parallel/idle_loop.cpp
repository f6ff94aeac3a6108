// SPDX-License-Identifier: MIT
#include "parallel/idle_loop.h"

#include <algorithm>
#include <thread>

#include <sched.h>

namespace glm {
namespace {

using Clock = CoreRivals::Clock;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// With a core of its own a rank polls about as long as a step of the others takes: naps let a
// virtual core halt, and a pipeline of two stages lost a fifth of its speed to them. Beside another
// program it polls only as long as a small message takes.
constexpr double kSpinSeconds = 20e-3;
constexpr double kRivalSpinSeconds = 20e-6;
// With ranks that share its core it yields, then naps; a nap doubles up to the limit.
constexpr double kYieldSeconds = 300e-6;
constexpr auto kFirstNap = std::chrono::microseconds(5);
constexpr auto kLongestNap = std::chrono::microseconds(80);

// Leaves the core's other thread, which may copy what is waited for, its share.
void relax() {
#if defined(__x86_64__)
  for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
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
  const double spin = rivals_.seen(last_) ? kRivalSpinSeconds : kSpinSeconds;
  const bool spins = !crowded_ && waited_ < spin;
  if (spins) {
    relax();
  } else if (crowded_ && waited_ < kYieldSeconds) {
    sched_yield();
  } else {
    nap();
  }
  const Clock::time_point now = Clock::now();
  if (spins) rivals_.polled(last_, now);
  waited_ += std::min(seconds(now - last_), kLongestGap);
  last_ = now;
}

}  // namespace glm
