// A libnccl.so.2 for machines without a GPU: the functions that parallel/nccl_library.cpp looks up,
// on the streams of emulated devices (emulated_device.h). Ranks are threads or processes of one
// host; between each two of them lie rings in shared memory. A send is done when the receiver has
// taken it, which shows orders of messages that would only work as long as messages are small.
// GLM_FAKE_NCCL="version=21700" or, on rank 1 of each group, "init", "stall=4", "error=4",
// "call=4": what goes wrong, and with which piece of work. SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <fcntl.h>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cuda/emulator.h"

namespace {

constexpr uint64_t kRingBytes = 128 << 10;

struct Ring {
  alignas(64) std::atomic<uint64_t> written{0};
  alignas(64) std::atomic<uint64_t> taken{0};
  unsigned char data[kRingBytes];

  // Both move what fits, and give how much that was.
  uint64_t put(const unsigned char* from, uint64_t bytes) {
    const uint64_t at = written;
    const uint64_t n = std::min(bytes, kRingBytes - (at - taken));
    const uint64_t before = std::min(n, kRingBytes - at % kRingBytes);  // the ring's end
    std::memcpy(data + at % kRingBytes, from, before);
    std::memcpy(data, from + before, n - before);
    written = at + n;
    return n;
  }
  uint64_t take(unsigned char* to, uint64_t bytes) {
    const uint64_t at = taken;
    const uint64_t n = std::min(bytes, written - at);
    const uint64_t before = std::min(n, kRingBytes - at % kRingBytes);
    std::memcpy(to, data + at % kRingBytes, before);
    std::memcpy(to + before, data, n - before);
    taken = at + n;
    return n;
  }
};

struct Shared {
  std::atomic<int> attached;
  Ring rings[1];  // [from][to]
};

// The value behind "name=" in GLM_FAKE_NCCL, 0 for the name alone, -1 without it.
int told(const std::string& name) {
  const char* variable = std::getenv("GLM_FAKE_NCCL");
  const std::string text = variable == nullptr ? "" : variable;
  if (text.rfind(name, 0) != 0) return -1;
  return text.size() > name.size() ? std::atoi(text.c_str() + name.size() + 1) : 0;
}

}  // namespace

struct ncclComm : std::enable_shared_from_this<ncclComm> {
  int size = 0;
  int rank = 0;
  Shared* shared = nullptr;
  size_t shared_bytes = 0;
  glm::emulator::Queue* queue = nullptr;  // of the last work
  int works = 0;
  int busy = 0;  // calls of ncclCommGetAsyncError until the last call is done
  std::atomic<bool> given_up{false};
  std::atomic<ncclResult_t> error{ncclSuccess};

  ~ncclComm() {
    if (shared != nullptr) munmap(shared, shared_bytes);
  }
  Ring& ring(int from, int to) { return shared->rings[from * size + to]; }
  bool faulty(const char* name, int work) const { return rank == 1 && told(name) == work; }
};

namespace {

// A send or receive on its way; eight bytes of length travel first.
struct Item {
  int peer;
  unsigned char* data;
  uint64_t bytes;
  bool receive;
  uint64_t moved = 0;
  uint64_t end = 0;  // of what was sent, in the ring's count
  uint64_t length = 0;

  bool done(ncclComm& comm) {
    if (moved < 8 + bytes) return false;
    return receive || comm.ring(comm.rank, peer).taken >= end;
  }
  void move(ncclComm& comm) {
    Ring& ring = receive ? comm.ring(peer, comm.rank) : comm.ring(comm.rank, peer);
    if (moved < 8) {
      if (!receive) length = bytes;
      auto* head = reinterpret_cast<unsigned char*>(&length);
      moved += receive ? ring.take(head + moved, 8 - moved) : ring.put(head + moved, 8 - moved);
      if (moved < 8) return;
      if (length != bytes) comm.error = ncclInvalidUsage;
    }
    const uint64_t at = moved - 8;
    moved += receive ? ring.take(data + at, bytes - at) : ring.put(data + at, bytes - at);
    end = ring.written;
  }
};

// One group of sends and receives, which is called until all of it is done.
struct Work {
  std::shared_ptr<ncclComm> comm;
  std::vector<Item> items;
  unsigned char* copy_to = nullptr;
  const unsigned char* copy_from = nullptr;
  uint64_t copy_bytes = 0;
  bool stalls = false;
  bool fails = false;

  void operator()() {
    if (fails) comm->error = ncclRemoteError;
    if (comm->given_up) return reset();
    if (stalls || comm->error != ncclSuccess) throw glm::emulator::NotYet();
    if (copy_to != copy_from) std::memmove(copy_to, copy_from, copy_bytes);
    bool all = true;
    std::vector<bool> behind(static_cast<size_t>(2 * comm->size), false);
    for (Item& item : items) {
      // Items between the same two ranks go one after the other.
      const auto lane = static_cast<size_t>(2 * item.peer + (item.receive ? 1 : 0));
      if (!behind[lane] && item.moved < 8 + item.bytes) item.move(*comm);
      if (item.moved < 8 + item.bytes) behind[lane] = true;
      all = all && item.done(*comm);
    }
    if (!all) throw glm::emulator::NotYet();
    reset();
  }
  void reset() {  // for the next replay
    for (Item& item : items) item.moved = 0;
  }
};

struct Registry {
  std::mutex mutex;
  std::map<ncclComm*, std::shared_ptr<ncclComm>> comms;
  int ids = 0;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

struct Group {
  int depth = 0;
  std::shared_ptr<Work> work;
};

Group& group() {
  static thread_local Group instance;
  return instance;
}

std::shared_ptr<Work> new_work(ncclComm* comm) {
  auto work = std::make_shared<Work>();
  work->comm = comm->shared_from_this();
  return work;
}

ncclResult_t submit(const std::shared_ptr<Work>& work, cudaStream_t stream) {
  ncclComm& comm = *work->comm;
  const int number = ++comm.works;
  if (comm.faulty("call", number)) return ncclInternalError;
  work->stalls = comm.faulty("stall", number);
  work->fails = comm.faulty("error", number);
  comm.queue = reinterpret_cast<glm::emulator::Queue*>(stream);
  comm.queue->enqueue([work] { (*work)(); });
  comm.busy = 2;
  return ncclInProgress;
}

ncclResult_t add_item(
    ncclComm* comm, int peer, const void* data, size_t bytes, bool receive, cudaStream_t stream) {
  if (group().depth == 0 || bytes == 0 || peer < 0 || peer >= comm->size || peer == comm->rank)
    return ncclInvalidArgument;
  if (!group().work) group().work = new_work(comm);
  auto* address = static_cast<unsigned char*>(const_cast<void*>(data));
  group().work->items.push_back({peer, address, bytes, receive});
  comm->queue = reinterpret_cast<glm::emulator::Queue*>(stream);
  return ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  const int named = told("version");
  *version = named > 0 ? named : NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(registry().mutex);
  const std::string name =
      "/glm_fake_nccl." + std::to_string(getpid()) + "." + std::to_string(++registry().ids);
  std::memset(id->internal, 0, sizeof id->internal);
  std::copy(name.begin(), name.end(), id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(
    ncclComm_t* comm, int nranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  auto made = std::make_shared<ncclComm>();
  made->size = nranks;
  made->rank = rank;
  const auto pairs = static_cast<size_t>(nranks) * static_cast<size_t>(nranks);
  made->shared_bytes = sizeof(Shared) + pairs * sizeof(Ring);
  const int file = shm_open(id.internal, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, static_cast<off_t>(made->shared_bytes)) != 0)
    return ncclSystemError;
  void* memory = mmap(nullptr, made->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return ncclSystemError;
  made->shared = static_cast<Shared*>(memory);  // zeroed, which is how it begins
  const bool missing = rank == 1 && told("init") == 0;
  if (missing || made->shared->attached.fetch_add(1) + 1 == nranks) shm_unlink(id.internal);
  *comm = made.get();
  const std::lock_guard lock(registry().mutex);
  registry().comms[made.get()] = made;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = comm->error;
  if (comm->error != ncclSuccess) return ncclSuccess;
  if (comm->shared->attached < comm->size || comm->busy > 0) {
    if (comm->busy > 0) --comm->busy;
    *state = comm->busy > 0 || comm->shared->attached < comm->size ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
  }
  // A GPU works while its host looks.
  if (comm->queue != nullptr) comm->queue->flush();
  *state = comm->error;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  comm->busy = 2;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const std::lock_guard lock(registry().mutex);
  registry().comms.erase(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->given_up = true;
  return ncclCommDestroy(comm);
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error"
                                   : "another error";
}

const char* ncclGetLastError(ncclComm_t comm) { return comm == nullptr ? "" : "a fake one"; }

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (--group().depth > 0) return ncclSuccess;
  const std::shared_ptr<Work> work = std::move(group().work);
  group().work.reset();
  if (!work) return ncclSuccess;
  return submit(work, reinterpret_cast<cudaStream_t>(work->comm->queue));
}

ncclResult_t ncclSend(
    const void* in, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add_item(comm, peer, in, count, false, stream);
}

ncclResult_t ncclRecv(
    void* out, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add_item(comm, peer, out, count, true, stream);
}

ncclResult_t ncclAllGather(
    const void* in, void* out, size_t count, ncclDataType_t, ncclComm_t comm, cudaStream_t stream) {
  const auto work = new_work(comm);
  auto* to = static_cast<unsigned char*>(out);
  auto* from = static_cast<unsigned char*>(const_cast<void*>(in));
  work->copy_to = to + static_cast<size_t>(comm->rank) * count;
  work->copy_from = from;
  work->copy_bytes = count;
  for (int peer = 0; peer < comm->size; ++peer) {
    if (peer == comm->rank) continue;
    work->items.push_back({peer, to + static_cast<size_t>(peer) * count, count, true});
    work->items.push_back({peer, from, count, false});
  }
  return submit(work, stream);
}

ncclResult_t ncclBroadcast(const void* in,
                           void* out,
                           size_t count,
                           ncclDataType_t,
                           int root,
                           ncclComm_t comm,
                           cudaStream_t stream) {
  if (in != out) return ncclInvalidArgument;
  const auto work = new_work(comm);
  auto* data = static_cast<unsigned char*>(out);
  for (int peer = 0; peer < comm->size; ++peer) {
    if (comm->rank == root && peer != root) work->items.push_back({peer, data, count, false});
    if (comm->rank != root && peer == root) work->items.push_back({peer, data, count, true});
  }
  return submit(work, stream);
}

}  // extern "C"
