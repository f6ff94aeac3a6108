// Threads of one rank: fork and join with the calling thread taking part. The caller waits only for
// workers that have begun a piece, so a worker that the system has put aside costs nothing. Waiting
// threads spin for some milliseconds, then sleep; they never spin where threads outnumber the
// cores this process may use. SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace glm {

// A reference to a callable that outlives the call: no allocation, unlike std::function.
class TaskRef {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, TaskRef>) explicit TaskRef(F& task)
      : object_(&task), call_([](void* object, int64_t begin, int64_t end, int thread) {
          (*static_cast<F*>(object))(begin, end, thread);
        }) {}
  TaskRef() = default;
  void operator()(int64_t begin, int64_t end, int thread) const {
    call_(object_, begin, end, thread);
  }

 private:
  void* object_ = nullptr;
  void (*call_)(void*, int64_t, int64_t, int) = nullptr;
};

class ThreadPool {
 public:
  // `threads` counts the calling thread. spin_us: how long to spin before sleeping; -1 chooses.
  explicit ThreadPool(int threads, int spin_us = -1);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // task(begin, end, thread) over [0, n) in pieces of at most `grain`: each thread has a contiguous
  // part, and takes pieces of the others' when it is through; returns when all are done. What a
  // piece computes must not depend on the thread. An exception of a task is rethrown here. One
  // caller at a time.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, F&& task) {
    if (n <= 0) return;
    if (threads_ == 1 || n <= grain) {
      task(int64_t{0}, n, 0);
      return;
    }
    TaskRef reference(task);
    run(n, grain, reference);
  }

 private:
  void stop_workers();
  void run(int64_t n, int64_t grain, TaskRef task);
  void take_pieces(int thread);
  void worker(int thread);
  template <class T>
  bool spin_until_changed(const std::atomic<T>& word, T old) const;

  // Part of the job that one thread begins with.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  int threads_;
  int spin_us_;
  std::vector<Share> shares_;
  std::vector<std::thread> workers_;
  bool enter(uint32_t generation);
  void leave();

  // The job; written by run() while no worker is inside.
  TaskRef task_;
  int64_t n_ = 0;
  int64_t grain_ = 1;
  // Number of the job, raised to wake the workers.
  alignas(64) std::atomic<uint32_t> generation_{0};
  // Number of the job in the upper half; whether workers may still enter; how many are inside.
  alignas(64) std::atomic<uint64_t> gate_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace glm
