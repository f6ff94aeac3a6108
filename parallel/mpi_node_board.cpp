// SPDX-License-Identifier: MIT
#include "parallel/mpi_node_board.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <new>

#include <pthread.h>
#include <unistd.h>

#include "core/base/check.h"
#include "parallel/idle_loop.h"
#include "parallel/mpi_transport.h"

namespace glm {
namespace {

constexpr auto kBeat = std::chrono::milliseconds(100);
constexpr double kSilence = 1.0;  // seconds without a beat that are worth telling

// CLOCK_MONOTONIC, the same in all processes of a host.
int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double seconds_since(int64_t ns) { return static_cast<double>(now_ns() - ns) * 1e-9; }

sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

// The process runs or stands still; a zombie does neither.
bool process_exists(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  if (!std::getline(file, text)) return false;
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos || name_end + 2 >= text.size()) return false;
  const char state = text[name_end + 2];
  return state != 'Z' && state != 'X';
}

}  // namespace

HeldSignal::HeldSignal(bool requests) : requests_(requests) {
  sigset_t signals = ending_signals();
  if (!requests) sigdelset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, &before_);
}

HeldSignal::~HeldSignal() {
  if (!requests_) pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

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
  }
  mine_ = slots_[static_cast<size_t>(rank)];
  mine_->world_rank = world_rank;
  mine_->process = getpid();
  if (size > 1) check_mpi(MPI_Barrier(node), "MPI_Barrier");
  for (const Slot* slot : slots_) visible_.push_back(process_exists(slot->process));
}

NodeBoard::~NodeBoard() { stop(); }

void NodeBoard::start_heartbeat(double patience, const Alarms& alarms) {
  if (thread_.joinable()) return;
  patience_ = patience;
  alarms_ = alarms;
  watches_.assign(slots_.size(), {});
  mine_->beat_ns = now_ns();
  // Signals belong to the main thread, but for those this thread asks for.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { beat(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void NodeBoard::beat() {
  int64_t last = now_ns();
  while (!stopping_) {
    const int64_t now = now_ns();
    mine_->beat_ns = now;
    // A longer gap means that this process stood still itself, perhaps the whole job.
    if (somebody_lost(std::min(static_cast<double>(now - last) * 1e-9, kLongestGap)))
      alarms_.lost();
    if (told() && !gone_text().empty()) alarms_.gone();
    last = now;
    wait_for_signal();
  }
}

// Until the next beat, or until stop() sends a signal to this thread. Without a HeldSignal the main
// thread gets those of the process.
void NodeBoard::wait_for_signal() {
  const sigset_t signals = ending_signals();
  const timespec pause{0, std::chrono::nanoseconds(kBeat).count()};
  const int signal = sigtimedwait(&signals, nullptr, &pause);
  if (signal <= 0 || stopping_) return;
  mine_->ending = 1;
  alarms_.told(signal);
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
  stopping_ = true;
  pthread_kill(thread_.native_handle(), SIGTERM);
  thread_.join();
  mine_->beat_ns = 0;  // silent on purpose
  mine_->ending = 1;
}

std::string NodeBoard::stalled_text() const {
  std::string silent, busy;
  const auto add = [&](std::string& text, const Slot& slot, const char* what, int64_t since) {
    text += fmt::format("{}rank {} on host {} has {} for {:.1f} s",
                        text.empty() ? "" : ", ",
                        slot.world_rank.load(),
                        host_,
                        what,
                        seconds_since(since));
  };
  for (const Slot* slot : slots_) {
    const int64_t beat = slot->beat_ns, poll = slot->poll_ns;
    if (beat == 0 || slot == mine_) continue;
    if (seconds_since(beat) >= kSilence)
      add(silent, *slot, "not shown a heartbeat", beat);
    else if (poll != 0 && seconds_since(poll) >= kSilence)
      add(busy, *slot, "waited for nobody", poll);
  }
  if (!silent.empty()) silent += ": stopped or swapped out?";
  if (!busy.empty()) busy += ": busy or hung?";
  return silent + (silent.empty() || busy.empty() ? "" : " ") + busy;
}

void NodeBoard::polled() const {
  if (mine_ != nullptr) mine_->poll_ns = now_ns();
}

std::string NodeBoard::gone_text() const {
  std::string text;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot* slot = slots_[i];
    // The second look is for one that was told to end and did so in between.
    if (!visible_[i] || slot->ending != 0 || process_exists(slot->process) || slot->ending != 0)
      continue;
    text += fmt::format(
        "{}rank {} on host {} is gone", text.empty() ? "" : ", ", slot->world_rank.load(), host_);
  }
  return text.empty() ? text : text + ": killed, or ended without a word";
}

bool NodeBoard::elect() const { return slots_[0]->reporter.exchange(1) == 0; }

void NodeBoard::release() {
  stop();
  mine_ = nullptr;
  slots_.clear();
  if (window_ != MPI_WIN_NULL) MPI_Win_free(&window_);
}

}  // namespace glm
