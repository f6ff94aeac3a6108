// SPDX-License-Identifier: MIT
#include "parallel/mpi_node_board.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <new>

#include <pthread.h>

#include "core/base/check.h"
#include "parallel/mpi_transport.h"

namespace glm {
namespace {

constexpr auto kBeat = std::chrono::milliseconds(100);
constexpr double kLongestGap = 0.5;
constexpr double kSilence = 1.0;  // seconds without a beat that are worth telling

// CLOCK_MONOTONIC, the same in all processes of a host.
int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

NodeBoard::NodeBoard(MPI_Comm node, int world_rank, const std::string& host) : host_(host) {
  static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);
  int rank = 0, size = 1;
  check_mpi(MPI_Comm_rank(node, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node, &size), "MPI_Comm_size");
  if (size == 1) {
    own_memory_ = std::make_unique<Slot>();
    slots_.push_back(own_memory_.get());
  } else {
    void* base = nullptr;
    check_mpi(MPI_Win_allocate_shared(sizeof(Slot), 1, MPI_INFO_NULL, node, &base, &window_),
              "MPI_Win_allocate_shared");
    for (int peer = 0; peer < size; ++peer) {
      MPI_Aint bytes = 0;
      int unit = 0;
      check_mpi(MPI_Win_shared_query(window_, peer, &bytes, &unit, &base), "MPI_Win_shared_query");
      slots_.push_back(static_cast<Slot*>(base));
    }
    new (slots_[static_cast<size_t>(rank)]) Slot;
    check_mpi(MPI_Barrier(node), "MPI_Barrier");
  }
  mine_ = slots_[static_cast<size_t>(rank)];
  mine_->world_rank = world_rank;
}

NodeBoard::~NodeBoard() { stop(); }

void NodeBoard::start_heartbeat(double patience, const std::function<void()>& lost) {
  if (thread_.joinable()) return;
  patience_ = patience;
  lost_ = lost;
  watches_.assign(slots_.size(), {});
  mine_->beat_ns = now_ns();
  // Signals belong to the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { beat(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void NodeBoard::beat() {
  std::unique_lock lock(mutex_);
  int64_t last = now_ns();
  while (!stopping_) {
    const int64_t now = now_ns();
    mine_->beat_ns = now;
    // A longer gap means that this process stood still itself, perhaps the whole job.
    if (somebody_lost(std::min(static_cast<double>(now - last) * 1e-9, kLongestGap))) lost_();
    last = now;
    wake_.wait_for(lock, kBeat);
  }
}

bool NodeBoard::somebody_lost(double elapsed) {
  bool lost = false;
  for (size_t i = 0; i < slots_.size(); ++i) {
    Watch& watch = watches_[i];
    const int64_t beat = slots_[i]->beat_ns;
    watch.silent = beat == 0 || beat != watch.beat_ns ? 0 : watch.silent + elapsed;
    watch.beat_ns = beat;
    lost = lost || watch.silent > patience_;
  }
  return lost;
}

void NodeBoard::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  mine_->beat_ns = 0;  // silent on purpose
}

std::string NodeBoard::stalled_text() const {
  std::string text;
  for (const Slot* slot : slots_) {
    const int64_t beat = slot->beat_ns;
    const double silent = static_cast<double>(now_ns() - beat) * 1e-9;
    if (beat == 0 || slot == mine_ || silent < kSilence) continue;
    text += fmt::format("{}rank {} on host {} has not shown a heartbeat for {:.1f} s",
                        text.empty() ? "" : ", ",
                        slot->world_rank.load(),
                        host_,
                        silent);
  }
  return text.empty() ? text : text + ": stopped or swapped out?";
}

bool NodeBoard::elect() const { return slots_[0]->reporter.exchange(1) == 0; }

void NodeBoard::release() {
  stop();
  mine_ = nullptr;
  slots_.clear();
  if (window_ != MPI_WIN_NULL) MPI_Win_free(&window_);
}

}  // namespace glm
