// Where memory and order live. Work on a device is enqueued; the host may read a tensor of the
// device only after wait(). On the CPU device everything is done when the call returns. A device is
// used by the thread that made it. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "core/base/tensor.h"

namespace glm {

// Looks at work in which others have a part (a group of ranks) while Device::wait waits for it.
class WaitWatch {
 public:
  virtual ~WaitWatch() = default;
  // About ten times a second. May throw: wait() ends with that error.
  virtual void waiting() = 0;
  // The deadline has passed: what the work may be waiting for; "" if nothing of the watch's is
  // under way.
  virtual std::string late_text() = 0;
  // Everything enqueued is done.
  virtual void done() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  virtual bool is_host() const = 0;
  // Which GPU of this host it is, the same in every process (PCI bus id); "" for the host itself.
  virtual std::string id() const { return {}; }

  // Of a GPU, by all processes; zeros for the host, whose memory is more than this process sees.
  struct Memory {
    int64_t free = 0;
    int64_t total = 0;
  };
  virtual Memory memory() { return {}; }

  // Memory for the life of the device; start-up only. Zeroed, 64-byte aligned (on the CPU 2 MiB
  // when large). Throws Error(kResources) with the size when there is no room.
  virtual Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) = 0;
  virtual int64_t allocated_bytes() const = 0;

  // Makes what was allocated so far resident, so that a plan's memory is really there, and not only
  // promised, before the work begins; start-up only. Throws Error(kResources) when it is not. GPUs
  // do so at allocation.
  virtual void commit() {}

  // Host memory for the life of the device, from and to which copies are quickest. Zeroed.
  virtual Tensor allocate_host(DType dtype, std::initializer_list<int64_t> dims) = 0;

  // Copies bytes between tensors of the same size, host or device, in stream order. The host leaves
  // both alone until wait().
  virtual void copy(Tensor dst, Tensor src) = 0;
  // Returns when everything enqueued is done. Throws on asynchronous errors and on a missed
  // deadline.
  virtual void wait() = 0;
  // Runs the work that `record` enqueues, which is the same whenever the key is. The first call for
  // a key is a plain one, the second records (a CUDA graph), later ones do not call `record` at
  // all: it neither waits nor copies to or from the host. Always a plain call on the CPU.
  virtual void replay(uint64_t key, const std::function<void()>& record) = 0;
  // The cudaStream_t that work is enqueued on; null on the CPU.
  virtual void* stream() const { return nullptr; }

  // The watch lives until it is removed.
  void add_watch(WaitWatch& watch) { watches_.push_back(&watch); }
  void remove_watch(WaitWatch& watch) { std::erase(watches_, &watch); }

 protected:
  // Seconds between two calls of WaitWatch::waiting.
  static constexpr double kWatchSeconds = 0.1;
  void tell_waiting() {
    for (WaitWatch* watch : watches_) watch->waiting();
  }
  void tell_done() {
    for (WaitWatch* watch : watches_) watch->done();
  }
  // "; " and what the watches know, or "".
  std::string late_text() const {
    std::string text;
    for (WaitWatch* watch : watches_)
      if (const std::string one = watch->late_text(); !one.empty()) text += "; " + one;
    return text;
  }

 private:
  std::vector<WaitWatch*> watches_;
};

std::unique_ptr<Device> make_cpu_device();

// GPU number `index` of those this process sees; wait() gives up after `timeout_seconds`. Throws
// Error(kUsage) when the build has no CUDA, Error(kResources) when there is no such GPU.
std::unique_ptr<Device> make_cuda_device(int index, double timeout_seconds);
// 0 without CUDA in the build, without a driver or without a GPU.
int cuda_device_count();
// Device::id() of a GPU of which no device was made yet.
std::string cuda_device_id(int index);
// Its UUID as nvidia-smi -L prints it: "GPU-5d3b8b44-...".
std::string cuda_device_uuid(int index);
// "13.0 (driver 13.0)", "13.0 (no driver)" or "not built in".
std::string cuda_version_text();

}  // namespace glm
