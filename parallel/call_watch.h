// The deadline of calls of the MPI library that have none, such as MPI_Comm_dup and MPI_Finalize.
// Owns the thread that watches one of them. SPDX-License-Identifier: MIT
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace glm {

class CallWatch {
 public:
  // `expired` runs on the watching thread when this object still lives after so many seconds. It
  // ends the process.
  CallWatch(double seconds, const std::function<void()>& expired);
  ~CallWatch();
  CallWatch(const CallWatch&) = delete;
  CallWatch& operator=(const CallWatch&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace glm
