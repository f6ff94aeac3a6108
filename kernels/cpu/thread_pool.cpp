// SPDX-License-Identifier: MIT
#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include <sched.h>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr int kSpinUs = 5000;
constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInside = kOpen - 1;  // mask of the count

uint64_t gate_of(uint32_t generation) { return (uint64_t{generation} << 32) | kOpen; }

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int usable_cores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 1;
  return CPU_COUNT(&mask);
}

}  // namespace

ThreadPool::ThreadPool(int threads, int spin_us)
    : threads_(threads), spin_us_(spin_us), shares_(static_cast<size_t>(std::max(1, threads))) {
  GLM_CHECK(threads >= 1, "{} threads", threads);
  if (spin_us_ < 0) spin_us_ = threads > usable_cores() ? 0 : kSpinUs;
  workers_.reserve(static_cast<size_t>(threads - 1));
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { worker(i); });
  } catch (const std::system_error& error) {
    const size_t started = workers_.size();
    stop_workers();
    fail(ExitCode::kResources,
         "only {} of {} threads could be started ({}); use fewer --threads",
         started + 1,
         threads,
         error.code().message());
  }
}

ThreadPool::~ThreadPool() { stop_workers(); }

void ThreadPool::stop_workers() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& thread : workers_) thread.join();
}

void ThreadPool::run(int64_t n, int64_t grain, TaskRef task) {
  task_ = task;
  n_ = n;
  grain_ = std::max<int64_t>(1, grain);
  const int64_t pieces = (n_ + grain_ - 1) / grain_;
  for (int64_t t = 0; t < threads_; ++t) {
    Share& share = shares_[static_cast<size_t>(t)];
    share.next.store(pieces * t / threads_ * grain_, std::memory_order_relaxed);
    share.end = std::min(n_, pieces * (t + 1) / threads_ * grain_);
  }
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  gate_.store(gate_of(generation), std::memory_order_release);
  generation_.store(generation, std::memory_order_release);
  generation_.notify_all();
  take_pieces(0);
  uint64_t gate = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  while ((gate & kInside) != 0) {
    if (!spin_until_changed(gate_, gate)) gate_.wait(gate, std::memory_order_acquire);
    gate = gate_.load(std::memory_order_acquire);
  }
  if (failed_.exchange(false, std::memory_order_acquire)) {
    const std::exception_ptr error = std::exchange(error_, nullptr);
    std::rethrow_exception(error);
  }
}

void ThreadPool::take_pieces(int thread) {
  try {
    for (int i = 0; i < threads_; ++i) {
      Share& share = shares_[static_cast<size_t>((thread + i) % threads_)];
      for (;;) {
        const int64_t begin = share.next.fetch_add(grain_, std::memory_order_relaxed);
        if (begin >= share.end) break;
        task_(begin, std::min(share.end, begin + grain_), thread);
      }
    }
  } catch (...) {
    for (Share& share : shares_) share.next.store(n_, std::memory_order_relaxed);
    if (!failed_.exchange(true, std::memory_order_acq_rel)) error_ = std::current_exception();
  }
}

// Whether the job is still open; then this worker counts as inside until leave().
bool ThreadPool::enter(uint32_t generation) {
  uint64_t gate = gate_.load(std::memory_order_acquire);
  while ((gate & ~kInside) == gate_of(generation))
    if (gate_.compare_exchange_weak(
            gate, gate + 1, std::memory_order_acq_rel, std::memory_order_acquire))
      return true;
  return false;
}

void ThreadPool::leave() {
  const uint64_t before = gate_.fetch_sub(1, std::memory_order_acq_rel);
  if ((before & (kInside | kOpen)) == 1) gate_.notify_one();  // the last one of a closed job
}

void ThreadPool::worker(int thread) {
  uint32_t seen = 0;
  for (;;) {
    if (!spin_until_changed(generation_, seen)) generation_.wait(seen, std::memory_order_acquire);
    const uint32_t now = generation_.load(std::memory_order_acquire);
    if (now == seen) continue;
    seen = now;
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!enter(now)) continue;
    take_pieces(thread);
    leave();
  }
}

template <class T>
bool ThreadPool::spin_until_changed(const std::atomic<T>& word, T old) const {
  if (spin_us_ == 0) return word.load(std::memory_order_acquire) != old;
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us_);
  do {
    for (int i = 0; i < 32; ++i) {
      if (word.load(std::memory_order_acquire) != old) return true;
      pause_core();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace glm
