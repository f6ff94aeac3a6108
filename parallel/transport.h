// What a group needs from the machine below it: byte ranges moved between ranks of the world,
// started together and polled. The collectives (group_communicator.cpp) and the one waiting loop
// (progress.cpp) are written once on top. SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/base/check.h"
#include "parallel/communicator.h"
#include "parallel/idle_loop.h"

namespace glm {

// Of a rank that stops waiting because another one has failed; not the cause of anything.
class ReleasedError final : public Error {
 public:
  using Error::Error;
};

// One byte range to or from a rank of the world; bytes > 0.
struct Transfer {
  int peer = 0;
  std::byte* data = nullptr;
  int64_t bytes = 0;
  bool receive = false;
};

// One per rank, shared by all groups of the rank and used by one thread. Transfers between the same
// two ranks with the same tag arrive in the order in which they were started.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // What the rank is about to wait for; for a transport that may have to tell it from another
  // thread.
  virtual void note(const char* verb, const StepContext* context) {
    static_cast<void>(verb);
    static_cast<void>(context);
  }
  // Starts a set; there is one set at a time.
  virtual void start(int tag, std::span<const Transfer> transfers) = 0;
  // Moves the set on. Sets done[i] for finished transfers; true when anything moved. Throws
  // Error(kCommunication) when a message has another size than expected.
  virtual bool poll(std::span<uint8_t> done) = 0;
  // Gives up what is left of the set after an error: its memory is not touched any more.
  virtual void cancel() = 0;

  // Copies the bytes and sends them beside the sets, in order with them. False when kMostPosted
  // earlier ones to this peer are under way: try again. Throws like poll().
  virtual bool try_post(int tag, const Transfer& send) = 0;
  // Moves what was posted on.
  virtual void progress() {}

  // Whether a set was started and neither finished nor given up.
  bool under_way() const { return under_way_; }
  void set_under_way(bool under_way) { under_way_ = under_way; }
  void give_up() {
    cancel();
    under_way_ = false;
  }

  // More ranks than cores on this host: a waiting rank gives its core away at once.
  virtual bool crowded() const = 0;
  CoreRivals& rivals() { return rivals_; }
  // "rank 2 (host n1)".
  virtual std::string rank_text(int rank) const = 0;
  // What is known about ranks of this host that stand still, as a clause for a message; "" if none.
  virtual std::string stalled_text() const { return {}; }

  // Groups that share two ranks have different tags: the members of a new group take the largest of
  // their next tags, and go on behind it.
  int next_tag() const { return next_tag_; }
  void set_next_tag(int tag) { next_tag_ = tag; }

 private:
  CoreRivals rivals_;
  int next_tag_ = 1;
  bool under_way_ = false;
};

}  // namespace glm
