// SPDX-License-Identifier: MIT
#include "parallel/call_watch.h"

#include <chrono>

namespace glm {

CallWatch::CallWatch(double seconds, const std::function<void()>& expired)
    : thread_([this, seconds, expired] {
        std::unique_lock lock(mutex_);
        if (!wake_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return done_; }))
          expired();
      }) {}

CallWatch::~CallWatch() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

}  // namespace glm
