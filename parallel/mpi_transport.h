// Byte ranges by MPI_Isend and MPI_Irecv on one communicator. SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include <mpi.h>

#include "parallel/mpi_node_board.h"
#include "parallel/transport.h"

namespace glm {

// Throws Error(kCommunication) with MPI's own text for a result that is not MPI_SUCCESS.
void check_mpi(int result, const char* call);

class MpiTransport final : public Transport {
 public:
  // comm returns errors; the transport does not own it. board tells of ranks that stand still.
  MpiTransport(MPI_Comm comm, const NodeBoard& board, bool crowded);
  ~MpiTransport() override;
  // Host of each rank; before it is set, messages name ranks only.
  void set_hosts(std::vector<std::string> hosts) { hosts_ = std::move(hosts); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void note(const char* verb, const StepContext* context) override;
  // What was noted last: "all_reduce, layer 17 (attention), decode step 12". From any thread.
  std::string noted_text() const;
  void start(int tag, std::span<const Transfer> transfers) override;
  bool poll(std::span<uint8_t> done) override;
  void cancel() override;
  bool try_post(int tag, const Transfer& send) override;
  void progress() override;
  bool crowded() const override { return crowded_; }
  std::string rank_text(int rank) const override;
  std::string stalled_text() const override { return board_.stalled_text(); }

 private:
  // A transfer, or a piece of one that MPI's int counts cannot hold.
  struct Piece {
    size_t transfer;
    int peer;
    int bytes;
    bool receive;
  };
  // A copy on its way, or (no requests) its memory, kept for the next one to this peer.
  struct Posted {
    int peer;
    std::vector<std::byte> bytes;
    std::vector<MPI_Request> requests;
  };
  void check_piece(const Piece& piece, const MPI_Status& status, int result) const;

  // Each field for itself is whole; a reader may see those of two neighbouring notes mixed.
  struct Note {
    std::atomic<const char*> verb{nullptr}, phase{nullptr}, part{""};
    std::atomic<int64_t> step{0};
    std::atomic<int> layer{-1};
  };

  MPI_Comm comm_;
  const NodeBoard& board_;
  bool crowded_;
  Note note_;
  int rank_ = 0;
  int size_ = 1;
  int largest_tag_ = 32767;
  std::vector<std::string> hosts_;
  std::vector<MPI_Request> requests_;
  std::vector<Piece> pieces_;
  std::vector<int> left_;  // unfinished pieces of each transfer
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;
  std::vector<Posted> posted_;
};

}  // namespace glm
