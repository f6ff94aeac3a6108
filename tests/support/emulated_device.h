// A GPU for tests where there is none: a device whose memory the host cannot touch (a segmentation
// fault, as with a real one) and whose work is done late, at wait(), so that a host which reads
// results too early, or writes to what is still to be copied, computes wrong numbers. replay()
// keeps the work of a call and does it again, whatever the host would ask for by then.
// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/device.h"
#include "kernels/cuda/emulator.h"

namespace glm::testing_support {

class EmulatedDevice : public Device, public emulator::Queue {
 public:
  explicit EmulatedDevice(int index = 0,
                          int64_t memory_bytes = int64_t{1} << 40,
                          double timeout_seconds = 300)
      : index_(index), memory_bytes_(memory_bytes), timeout_seconds_(timeout_seconds) {}
  EmulatedDevice(const EmulatedDevice&) = delete;
  EmulatedDevice& operator=(const EmulatedDevice&) = delete;
  ~EmulatedDevice() override;

  std::string name() const override { return "cuda:" + std::to_string(index_) + " (emulated)"; }
  std::string id() const override { return "emulated " + std::to_string(index_); }
  bool is_host() const override { return false; }
  Memory memory() override { return {memory_bytes_ - allocated_bytes_, memory_bytes_}; }
  Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) override;
  Tensor allocate_host(DType dtype, std::initializer_list<int64_t> dims) override {
    return cpu_->allocate(dtype, dims);
  }
  int64_t allocated_bytes() const override { return allocated_bytes_; }
  void copy(Tensor dst, Tensor src) override;
  void wait() override;
  void replay(uint64_t key, const std::function<void()>& record) override;
  // An emulator::Queue*.
  void* stream() const override {
    return static_cast<emulator::Queue*>(const_cast<EmulatedDevice*>(this));
  }

  void enqueue(std::function<void()> work) override;
  void flush() override;

  // How often recorded work was run.
  int64_t n_replayed() const { return n_replayed_; }

 private:
  using Work = std::deque<std::function<void()>>;
  struct Mapping {
    void* base;
    size_t bytes;
  };
  void protect(int protection);
  bool advance();
  void pause();

  int index_;
  int64_t memory_bytes_;
  double timeout_seconds_;
  const std::unique_ptr<Device> cpu_ = make_cpu_device();
  std::vector<Mapping> mappings_;
  int64_t allocated_bytes_ = 0;
  Work pending_;
  bool waiting_ = false;
  // Works on what is pending while the host is elsewhere, from flush() to the next call.
  std::thread helper_;
  std::atomic<bool> stop_{false};
  std::exception_ptr helper_error_;
  std::map<uint64_t, Work> graphs_;
  Work* recording_ = nullptr;
  int64_t n_replayed_ = 0;
};

}  // namespace glm::testing_support
