// A group of ranks that have a GPU each. Tensors of the host travel by the group of the hosts,
// unchanged; tensors of the device go over NCCL, enqueued on the device's stream. Nothing of the
// device's allocates, waits or asks the host there, so the verbs can be recorded (Device::replay).
// Sums are taken as by the hosts, in ascending rank order, by a kernel of ours: the same bits.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/nccl_groups.h"

namespace glm {

class NcclCommunicator final : public Communicator {
 public:
  // host: the group of the same ranks. link: absent for a group of one.
  NcclCommunicator(std::unique_ptr<Communicator> host,
                   std::shared_ptr<DeviceGroups> groups,
                   std::shared_ptr<NcclLink> link);

  // NCCL connects two ranks at their first message, which takes long and memory, and cannot be
  // recorded: one small message each way between all of them, and one sum. Collective.
  void warm_up();

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override;
  void barrier() override;  // of the hosts
  void all_reduce_sum(Tensor inout) override;
  void all_gather(Tensor out, Tensor in, std::span<const int64_t> rows) override;
  void reduce_scatter_sum(Tensor out, Tensor in, std::span<const int64_t> rows) override;
  void all_to_all(Tensor out,
                  std::span<const int64_t> recv_rows,
                  Tensor in,
                  std::span<const int64_t> send_rows) override;
  // Parts on the device are enqueued at once: what the rank computes next waits for them.
  void all_to_all_start(std::span<const AllToAllPart> parts) override;
  void all_to_all_wait() override;
  void all_to_all_cancel() override;
  void broadcast(Tensor inout, int root) override;
  // Both sides name a tensor of their device, or both one of the host.
  void send(Tensor in, int peer) override;
  void recv(Tensor out, int peer) override;
  // Of a tensor on the device nothing is copied first: its memory is written again by work behind
  // the message on the same stream only. That work may wait for the receiver where the message is
  // larger than NCCL's buffers, so a rank must not post to one that waits for later work of its
  // own.
  void post(Tensor in, int peer) override;
  void progress() override { host_->progress(); }
  bool recordable() const override { return true; }
  // Seconds are those of the host: waiting happens in Device::wait. A replayed step counts nothing.
  const CommCounters& counters() const override;
  std::string name() const override { return name_; }

 private:
  class Call;

  bool here(Tensor tensor) const { return tensor.device == &groups_->device(); }
  bool here(Tensor a, Tensor b) const;
  // The group of the hosts, after a look at what was enqueued before.
  Communicator& host();
  int64_t own_rows(std::span<const int64_t> rows) const;

  void add_send(int peer, const std::byte* data, int64_t bytes);
  void add_recv(int peer, std::byte* data, int64_t bytes);
  void run();
  void copy(std::byte* to, const std::byte* from, int64_t bytes);
  void add_part(const AllToAllPart& part);
  void gather_bytes(std::byte* out, const std::byte* in, std::span<const int64_t> bytes);
  void gather_equal(std::byte* out, const std::byte* in, int64_t bytes);
  // Elements [begin[p], begin[p] + count[p]) of `in` to rank p, at most what the stage holds of
  // each; out: this rank's, summed over ranks.
  void scatter_sum(float* out,
                   const float* in,
                   std::span<const int64_t> begin,
                   std::span<const int64_t> count);
  void sum_round(float* data, int64_t count);
  int64_t stage_count() const { return groups_->stage().elements() / size(); }

  std::shared_ptr<DeviceGroups> groups_;
  std::unique_ptr<Communicator> host_;
  std::shared_ptr<NcclLink> link_;
  std::string name_;
  CommCounters counters_;
  mutable CommCounters all_counters_;
  int64_t sequence_ = 0;
  std::vector<NcclLink::Piece> pieces_;
  std::vector<int64_t> begin_, count_;
  std::vector<AllToAllPart> host_parts_;
  bool started_ = false;       // all_to_all
  bool host_started_ = false;  // parts of it on the host
};

}  // namespace glm
