// The collectives' contract. A group of ranks; every verb on every transport (self, threads, MPI).
// Calls are enqueued in stream order of the tensor's device: the host may touch a buffer again
// after Device::wait (at once on the CPU). All ranks of a group make the same calls in the same
// order. Sums are taken in ascending rank order whatever the transport, so every rank holds the
// same bits. Every wait has a deadline; when it passes, Error(kCommunication) names operation,
// group, layer, sequence number and the ranks waited for; the group is of no use afterwards.
// send() may wait for its recv(). Tensors of a device that is not the host's travel through host
// memory, or by the devices' own library (NcclCommunicator, made from a group like these).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "core/base/step_log.h"
#include "core/base/tensor.h"
#include "core/base/trace.h"

namespace glm {

// Where the program is, for messages. One per rank; model and engine write it, communicators read
// it.
struct StepContext {
  const char* phase = "start";  // "load", "prefill", "decode", ...
  int64_t step = 0;
  int layer = -1;          // -1 outside the layers
  const char* part = "";   // "attention", "dispatch", ...
  StepLog* log = nullptr;  // of a job that records itself
};

// What a rank sent, for the summary.
struct CommCounters {
  int64_t calls = 0;
  int64_t sent_bytes = 0;
  double seconds = 0;  // spent inside verbs, waiting included
};

// One buffer of an all-to-all: send_rows[p] rows of `in` for each peer p, recv_rows[p] rows of
// `out` from each.
struct AllToAllPart {
  Tensor out;
  std::span<const int64_t> recv_rows;
  Tensor in;
  std::span<const int64_t> send_rows;
  bool own_in_place = false;  // what this rank would send itself stands in `out` already
};

// What the ranks of a group hold together.
inline int64_t total_rows(std::span<const int64_t> rows) {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

// Posted messages between two ranks that are under way at once.
constexpr int kMostPosted = 4;

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Ranks with the same color form a group, ordered by key. Collective over this group.
  virtual std::unique_ptr<Communicator> split(int color, int key, const std::string& name) = 0;

  virtual void barrier() = 0;
  // f32; in place.
  virtual void all_reduce_sum(Tensor inout) = 0;
  // in: this rank's rows [rows[rank], n]; out: [sum of rows, n], rank after rank. Any dtype.
  virtual void all_gather(Tensor out, Tensor in, std::span<const int64_t> rows) = 0;
  // in: [sum of rows, n] f32 on every rank; out: [rows[rank], n], the sum over ranks of this rank's
  // rows.
  virtual void reduce_scatter_sum(Tensor out, Tensor in, std::span<const int64_t> rows) = 0;
  // in: send_rows[p] rows for each peer p, one after the other; out: recv_rows[p] rows from each.
  // Any dtype.
  virtual void all_to_all(Tensor out,
                          std::span<const int64_t> recv_rows,
                          Tensor in,
                          std::span<const int64_t> send_rows) = 0;
  // The same in two calls and for several buffers at once. In between the rank computes; it calls
  // no verb of any group, and leaves the buffers alone.
  virtual void all_to_all_start(std::span<const AllToAllPart> parts) = 0;
  virtual void all_to_all_wait() = 0;
  // After an error: the buffers of a started call are not touched any more. Without one: nothing.
  virtual void all_to_all_cancel() = 0;
  virtual void broadcast(Tensor inout, int root) = 0;
  virtual void send(Tensor in, int peer) = 0;
  virtual void recv(Tensor out, int peer) = 0;
  // Like send(), but the bytes are copied first and travel while the rank goes on; it waits only
  // while kMostPosted earlier ones to this peer are under way. Order among all sends is kept.
  virtual void post(Tensor in, int peer) = 0;
  // Moves posted bytes on; for ranks that compute for long between their verbs.
  virtual void progress() = 0;

  // Whether verbs on tensors of the rank's device only enqueue, so that Device::replay may record
  // them. The same on all ranks of the group.
  virtual bool recordable() const { return size() == 1; }

  virtual const CommCounters& counters() const = 0;
  virtual std::string name() const = 0;  // of the group: "world", "tensor", ...
};

// Strings and plain values between hosts' memories, on any communicator (broadcast of length, then
// of bytes).
void broadcast_string(Communicator& group, std::string& text, int root);
// Every rank's text, in rank order, on every rank.
std::vector<std::string> all_gather_strings(Communicator& group, const std::string& text);

// What all transports need at creation.
struct CommOptions {
  double timeout_seconds = 300;          // --timeout
  const StepContext* context = nullptr;  // may be null
  Trace* trace = nullptr;                // may be null
};

// A group of one.
std::unique_ptr<Communicator> make_self_communicator(const CommOptions& options);

// Ranks that are threads of this process: runs body(world) on n threads and joins them. The first
// error (lowest rank) is thrown again after the other ranks were released with errors of their own.
void run_thread_ranks(int n,
                      const CommOptions& options,
                      const std::function<void(Communicator& world)>& body);

}  // namespace glm
