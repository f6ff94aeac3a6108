// SPDX-License-Identifier: MIT
#include "parallel/nccl_link.h"

#include <chrono>
#include <cstring>
#include <exception>
#include <future>
#include <thread>

#include "parallel/idle_loop.h"

namespace glm {
namespace {

// Giving up may itself wait for other ranks of the host.
constexpr auto kLongestAbort = std::chrono::seconds(3);

// One group of NCCL's calls, closed also where a call in it fails.
class CallGroup {
 public:
  explicit CallGroup(const NcclLibrary& library) : library_(library) {}
  ~CallGroup() {
    if (open_) library_.group_end();
  }
  CallGroup(const CallGroup&) = delete;
  CallGroup& operator=(const CallGroup&) = delete;
  int start() {
    open_ = true;
    return library_.group_start();
  }
  int end() {
    open_ = false;
    return library_.group_end();
  }

 private:
  const NcclLibrary& library_;
  bool open_ = false;
};

}  // namespace

NcclLink::NcclLink(Communicator& group, const Rank& rank) : rank_(rank) {
  const std::string name = group.name();
  begin({"init", &name, 0});
  pending_ = false;
  const NcclId id = shared_id(group);
  try {
    const int result = rank_.library->init(comm_, group.size(), id, group.rank());
    accept("ncclCommInitRankConfig", result);
    settle("ncclCommInitRankConfig");
  } catch (...) {
    give_up();
    throw;
  }
  rank_.device.add_watch(*this);
}

NcclLink::~NcclLink() {
  rank_.device.remove_watch(*this);
  bool idle = false;
  if (!failed_ && std::uncaught_exceptions() == 0) {
    try {
      rank_.device.wait();
      idle = true;
      accept("ncclCommFinalize", rank_.library->finalize(comm_));
      settle("ncclCommFinalize");
    } catch (const Error&) {
      idle = false;
    }
  }
  if (idle)
    rank_.library->destroy(comm_);
  else
    give_up();
}

// Rank 0 makes it; that it could not is heard by all.
NcclId NcclLink::shared_id(Communicator& group) {
  NcclId id{};
  std::string text;
  if (group.rank() == 0) {
    const int result = rank_.library->make_id(id);
    text.assign(id.begin(), id.end());
    if (result != kNcclDone) text = "NCCL: " + rank_.library->error_text(result, nullptr);
  }
  broadcast_string(group, text, 0);
  if (text.size() != id.size())
    fail(ExitCode::kCommunication,
         "{} of group {}; NCCL_DEBUG=INFO tells more, NCCL_SOCKET_IFNAME names the network",
         text,
         group.name());
  std::copy(text.begin(), text.end(), id.begin());
  return id;
}

std::string NcclLink::text_of(const Note& note) const {
  return fmt::format("{} of group {}{}, seq {}",
                     note.verb,
                     note.group,
                     rank_.options.context == nullptr ? "" : place_text(&note.context),
                     note.sequence);
}

void NcclLink::begin(const Operation& operation) {
  last_.verb = operation.verb;
  last_.group = *operation.group;
  last_.sequence = operation.sequence;
  if (rank_.options.context != nullptr) last_.context = *rank_.options.context;
  if (!pending_) first_ = last_;
  pending_ = true;
}

void NcclLink::fail_result(const char* call, int result) {
  failed_ = true;
  fail(ExitCode::kCommunication,
       "{}: NCCL: {} from {} in {}; NCCL_DEBUG=WARN tells more",
       rank_.text,
       rank_.library->error_text(result, comm_),
       call,
       text_of(last_));
}

void NcclLink::accept(const char* call, int result) {
  if (result != kNcclDone && result != kNcclInProgress) fail_result(call, result);
}

void NcclLink::check() {
  int state = kNcclDone;
  accept("ncclCommGetAsyncError", rank_.library->async_error(comm_, state));
  accept("work enqueued before", state);
}

// Calls may go on in a thread of NCCL's, the first ones of a pair of ranks until they are
// connected.
void NcclLink::settle(const char* call) {
  CoreRivals rivals;
  IdleLoop loop(false, rivals);
  for (;;) {
    int state = kNcclDone;
    accept("ncclCommGetAsyncError", rank_.library->async_error(comm_, state));
    accept(call, state);
    if (state == kNcclDone) return;
    rank_.world.progress();
    loop.idle();
    if (loop.waited() < rank_.options.timeout_seconds) continue;
    failed_ = true;
    fail(ExitCode::kCommunication,
         "{} waited {:.3g} s for {} in {}; another rank of the group does not take part, or the "
         "network is not the one NCCL chose: NCCL_DEBUG=INFO tells, NCCL_SOCKET_IFNAME names it",
         rank_.text,
         rank_.options.timeout_seconds,
         call,
         text_of(last_));
  }
}

void NcclLink::exchange(std::span<const Piece> pieces) {
  if (pieces.empty()) return;
  const NcclLibrary& library = *rank_.library;
  void* stream = rank_.device.stream();
  CallGroup group(library);
  accept("ncclGroupStart", group.start());
  for (const Piece& piece : pieces) {
    if (piece.receive)
      accept("ncclRecv", library.recv(piece.data, piece.bytes, piece.peer, comm_, stream));
    else
      accept("ncclSend", library.send(piece.data, piece.bytes, piece.peer, comm_, stream));
  }
  const int result = group.end();
  accept("ncclGroupEnd", result);
  if (result == kNcclInProgress) settle("ncclGroupEnd");
}

void NcclLink::all_gather(std::byte* out, const std::byte* in, int64_t bytes) {
  const int result = rank_.library->all_gather(out, in, bytes, comm_, rank_.device.stream());
  accept("ncclAllGather", result);
  if (result == kNcclInProgress) settle("ncclAllGather");
}

void NcclLink::broadcast(std::byte* inout, int64_t bytes, int root) {
  const int result = rank_.library->broadcast(inout, bytes, root, comm_, rank_.device.stream());
  accept("ncclBroadcast", result);
  if (result == kNcclInProgress) settle("ncclBroadcast");
}

void NcclLink::waiting() {
  rank_.world.progress();
  check();
}

std::string NcclLink::late_text() {
  failed_ = true;
  if (!pending_) return {};
  if (first_.sequence == last_.sequence && first_.group == last_.group)
    return fmt::format("{} in {} (NCCL)", rank_.text, text_of(last_));
  return fmt::format("{} between {} and {} (NCCL)", rank_.text, text_of(first_), text_of(last_));
}

void NcclLink::give_up() {
  if (comm_ == nullptr) return;
  std::promise<void> done;
  std::future<void> ended = done.get_future();
  std::thread([library = rank_.library, comm = comm_, done = std::move(done)]() mutable {
    library->abort(comm);
    done.set_value();
  }).detach();
  ended.wait_for(kLongestAbort);
  comm_ = nullptr;
}

}  // namespace glm
