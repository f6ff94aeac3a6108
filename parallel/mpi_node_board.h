// Memory that the ranks of one host share: a heartbeat of each, and the choice of the one rank that
// reports an error. SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <mpi.h>

namespace glm {

class NodeBoard {
 public:
  // Collective over `node`, the ranks of one host.
  NodeBoard(MPI_Comm node, int world_rank, const std::string& host);
  ~NodeBoard();
  NodeBoard(const NodeBoard&) = delete;
  NodeBoard& operator=(const NodeBoard&) = delete;

  // Starts the thread that shows, ten times a second, that this process runs, and looks at the
  // others: it calls `lost` when one of them has shown nothing for `patience` seconds. This finds
  // a rank that stands still while all others compute and nobody waits for it.
  void start_heartbeat(double patience, const std::function<void()>& lost);
  // "rank 3 on host n1 has not shown a heartbeat for 5.1 s: stopped or swapped out?", or "".
  std::string stalled_text() const;
  // True for one rank of the host, once.
  bool elect() const;
  // Gives the shared memory back; collective, before MPI_Finalize.
  void release();

 private:
  // MPI aligns windows to 8 bytes; the padding keeps beats of two ranks off one cache line.
  struct Slot {
    std::atomic<int64_t> beat_ns{0};  // monotonic clock of the host, 0 before the first
    std::atomic<int> world_rank{-1};
    std::atomic<int> reporter{0};  // of slot 0: somebody has been elected
    std::array<char, 112> padding{};
  };
  void beat();
  bool somebody_lost(double elapsed);
  void stop();

  std::string host_;
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<Slot*> slots_;          // of each rank of the host
  std::unique_ptr<Slot> own_memory_;  // a host with one rank needs no window
  Slot* mine_ = nullptr;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  double patience_ = 0;
  std::function<void()> lost_;
  struct Watch {
    int64_t beat_ns = 0;
    double silent = 0;  // seconds of our own running time
  };
  std::vector<Watch> watches_;
};

}  // namespace glm
