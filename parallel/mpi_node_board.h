// Memory that the ranks of one host share: a heartbeat of each, which of them are gone, and the
// choice of the one rank that reports an error. SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <mpi.h>

namespace glm {

// Holds the launcher's SIGTERM back for NodeBoard's thread, and SIGUSR1 with it in jobs that stop
// on request. Before MPI_Init, so that the threads of the MPI library hold them back as well. Those
// of jobs that stop on request stay held until the process has ended: who leaves in good order
// keeps its exit code.
class HeldSignal {
 public:
  explicit HeldSignal(bool requests);
  ~HeldSignal();
  HeldSignal(const HeldSignal&) = delete;
  HeldSignal& operator=(const HeldSignal&) = delete;

 private:
  bool requests_;
  sigset_t before_;
};

class NodeBoard {
 public:
  // Collective over `node`, the ranks of one host.
  NodeBoard(MPI_Comm node, int world_rank, const std::string& host);
  ~NodeBoard();
  NodeBoard(const NodeBoard&) = delete;
  NodeBoard& operator=(const NodeBoard&) = delete;

  // What the thread finds out; it ends the process.
  struct Alarms {
    // A rank of this host has shown nothing for `patience` seconds. This finds one that stands
    // still while all others compute and nobody waits for it.
    std::function<void()> lost;
    // SIGTERM or SIGUSR1. May return: the process goes on, to end in good order.
    std::function<void(int signal)> told;
    // Told before, and a rank is gone (gone_text()).
    std::function<void()> gone;
  };
  // Starts the thread that shows, ten times a second, that this process runs, and looks at the
  // others.
  void start_heartbeat(double patience, const Alarms& alarms);
  // Ends the thread; the rank leaves in good order.
  void stop();
  // "rank 3 on host n1 has not shown a heartbeat for 5.1 s: stopped or swapped out?", or, of one
  // that runs, "rank 3 on host n1 has waited for nobody for 5.1 s: busy or hung?", or "".
  std::string stalled_text() const;
  // This rank looks for messages: it is not the one the others wait for.
  void polled() const;
  // "rank 3 on host n1 is gone: killed, or ended without a word", or "". Not those that were told
  // to end.
  std::string gone_text() const;
  // True for one rank of the host, once.
  bool elect() const;
  // Gives the shared memory back; collective, before MPI_Finalize.
  void release();

 private:
  // MPI aligns windows to 8 bytes; the padding keeps beats of two ranks off one cache line.
  struct Slot {
    std::atomic<int64_t> beat_ns{0};  // monotonic clock of the host, 0 before the first
    std::atomic<int64_t> poll_ns{0};  // when it last looked for messages
    std::atomic<int> world_rank{-1};
    std::atomic<int> reporter{0};  // of slot 0: somebody has been elected
    std::atomic<int> process{0};   // as its own host knows it
    std::atomic<int> ending{0};    // it was told to end, or ends in good order
    std::array<char, 96> padding{};
  };
  void beat();
  bool somebody_lost(double elapsed);
  void wait_for_signal();
  bool told() const { return mine_->ending != 0; }

  std::string host_;
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<Slot*> slots_;          // of each rank of the host
  std::unique_ptr<Slot> own_memory_;  // a host with one rank needs no window
  Slot* mine_ = nullptr;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  double patience_ = 0;
  Alarms alarms_;
  struct Watch {
    int64_t beat_ns = 0;
    double silent = 0;  // seconds of our own running time
  };
  std::vector<Watch> watches_;
  std::vector<bool> visible_;  // whose process can be seen: containers may hide those of others
};

}  // namespace glm
