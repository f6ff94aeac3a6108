// Runs the verbs of a group on tensors of a device, whatever the caller gives: tensors of the host
// are copied there and back. So what is written once for all groups is a test of the device's.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "core/base/device.h"
#include "parallel/communicator.h"

namespace glm::testing_support {

class MirroredGroup final : public Communicator {
 public:
  MirroredGroup(Communicator& group, Device& device) : group_(group), device_(device) {}
  MirroredGroup(std::unique_ptr<Communicator> group, Device& device)
      : group_(*group), device_(device), owned_(std::move(group)) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override {
    return std::make_unique<MirroredGroup>(group_.split(color, key, name), device_);
  }
  void barrier() override { group_.barrier(); }
  void all_reduce_sum(Tensor inout) override {
    group_.all_reduce_sum(there(inout));
    finish();
  }
  void all_gather(Tensor out, Tensor in, std::span<const int64_t> rows) override {
    const Tensor source = there(in);
    group_.all_gather(there(out), source, rows);
    finish();
  }
  void reduce_scatter_sum(Tensor out, Tensor in, std::span<const int64_t> rows) override {
    const Tensor source = there(in);
    group_.reduce_scatter_sum(there(out), source, rows);
    finish();
  }
  void all_to_all(Tensor out,
                  std::span<const int64_t> recv_rows,
                  Tensor in,
                  std::span<const int64_t> send_rows) override {
    const Tensor source = there(in);
    const AllToAllPart part{there(out), recv_rows, source, send_rows};
    group_.all_to_all_start(std::span(&part, 1));
    group_.all_to_all_wait();
    finish();
  }
  void all_to_all_start(std::span<const AllToAllPart> parts) override {
    group_.all_to_all_start(parts);
  }
  void all_to_all_wait() override { group_.all_to_all_wait(); }
  void all_to_all_cancel() override { group_.all_to_all_cancel(); }
  void broadcast(Tensor inout, int root) override {
    group_.broadcast(there(inout), root);
    finish();
  }
  void send(Tensor in, int peer) override {
    group_.send(there(in), peer);
    finish();
  }
  void recv(Tensor out, int peer) override {
    group_.recv(there(out), peer);
    finish();
  }
  void post(Tensor in, int peer) override {
    group_.post(there(in), peer);
    back_.clear();
    used_ = 0;  // written again by later work of the device only
  }
  void progress() override { group_.progress(); }
  const CommCounters& counters() const override { return group_.counters(); }
  std::string name() const override { return group_.name(); }

 private:
  static constexpr int64_t kMemoryBytes = int64_t{48} << 20;

  // Tensors of devices stay as they are.
  Tensor there(Tensor tensor) {
    if (tensor.absent() || tensor.device != nullptr) return tensor;
    const int64_t bytes = tensor.bytes();
    Tensor moved = tensor;
    moved.device = &device_;
    moved.data = memory_.as<char>() + used_;
    used_ += (bytes + 255) / 256 * 256;
    if (used_ > memory_.bytes()) throw std::bad_alloc();
    device_.copy(moved, tensor);
    device_.wait();
    back_.push_back({tensor, moved});
    return moved;
  }
  // What was sent is also given back: verbs leave it as it was.
  void finish() {
    for (const auto& [host, copy] : back_) device_.copy(host, copy);
    device_.wait();
    back_.clear();
    used_ = 0;
  }

  Communicator& group_;
  Device& device_;
  std::unique_ptr<Communicator> owned_;
  Tensor memory_ = device_.allocate(DType::kU8, {kMemoryBytes});
  int64_t used_ = 0;
  std::vector<std::pair<Tensor, Tensor>> back_;
};

}  // namespace glm::testing_support
