// All verbs of a group of ranks, composed of sets of transfers on any transport.
// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/progress.h"

namespace glm {

class GroupCommunicator final : public Communicator {
 public:
  // members: ranks of the world in group order; this rank is among them.
  GroupCommunicator(std::shared_ptr<Transport> transport,
                    std::vector<int> members,
                    int tag,
                    const std::string& name,
                    const CommOptions& options);

  // The group of all ranks of the transport.
  static std::unique_ptr<GroupCommunicator> world(std::shared_ptr<Transport> transport,
                                                  const CommOptions& options);

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override;
  void barrier() override;
  void all_reduce_sum(Tensor inout) override;
  void all_gather(Tensor out, Tensor in, std::span<const int64_t> rows) override;
  void reduce_scatter_sum(Tensor out, Tensor in, std::span<const int64_t> rows) override;
  void all_to_all(Tensor out,
                  std::span<const int64_t> recv_rows,
                  Tensor in,
                  std::span<const int64_t> send_rows) override;
  void all_to_all_start(std::span<const AllToAllPart> parts) override;
  void all_to_all_wait() override;
  void all_to_all_cancel() override;
  void broadcast(Tensor inout, int root) override;
  void send(Tensor in, int peer) override;
  void recv(Tensor out, int peer) override;
  void post(Tensor in, int peer) override;
  void progress() override { transport_->progress(); }
  const CommCounters& counters() const override { return counters_; }
  std::string name() const override { return name_; }

  void set_options(const CommOptions& options) { options_ = options; }

 private:
  class Call;
  // Which of the copies of device tensors; all-to-all has two for each of its parts.
  using Side = size_t;
  static constexpr Side kIn = 0, kOut = 1;
  static constexpr size_t kMaxParts = 2;

  // The tensor's bytes in the host's memory. Of a device tensor: a copy, made by host_in; what was
  // written to it reaches the device by give_back.
  std::byte* host_in(Tensor tensor, Side side);
  std::byte* host_out(Tensor tensor, Side side);
  void give_back(Tensor tensor, Side side);

  void add_send(int peer, const std::byte* data, int64_t bytes);
  void add_recv(int peer, std::byte* data, int64_t bytes);
  // Runs what was added.
  void run();
  void add_part(const AllToAllPart& part, Side side);

  void gather_bytes(std::byte* out, const std::byte* in, std::span<const int64_t> bytes);
  void sum_small(float* data, int64_t count);
  void sum_large(float* data, int64_t count);
  // Elements [begin[p], begin[p] + count[p]) of `in` belong to rank p; out: this rank's, summed
  // over ranks.
  void scatter_sum(float* out,
                   const float* in,
                   std::span<const int64_t> begin,
                   std::span<const int64_t> count);
  // out := the sum of this rank's piece and of those on the stage, in rank order.
  void sum_pieces(float* out, const float* own, int64_t count);
  int64_t stage_count() const;  // floats of one rank that fit the stage

  std::shared_ptr<Transport> transport_;
  std::vector<int> members_;
  int rank_ = 0;
  int tag_ = 0;
  std::string name_;
  CommOptions options_;
  CommCounters counters_;
  int64_t sequence_ = 0;
  const char* verb_ = "";
  Progress progress_;
  std::vector<Transfer> transfers_;
  std::vector<int64_t> begin_, count_;
  std::unique_ptr<float[]> stage_;  // pieces of other ranks, before they are summed
  std::array<std::vector<std::byte>, 2 * kMaxParts> device_stage_;
  bool started_ = false;                       // all_to_all
  std::array<Tensor, kMaxParts> started_out_;  // its results
};

}  // namespace glm
