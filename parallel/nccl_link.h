// One communicator of NCCL: made under a deadline, watched while the device works, ended in good
// order or given up. SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <span>
#include <string>

#include "core/base/device.h"
#include "parallel/communicator.h"
#include "parallel/nccl_library.h"
#include "parallel/progress.h"

namespace glm {

class NcclLink final : public WaitWatch {
 public:
  struct Rank {
    std::shared_ptr<const NcclLibrary> library;
    Device& device;  // outlives the link
    CommOptions options;
    std::string text;     // "rank 2 (host n1)", for messages
    Communicator& world;  // of hosts; outlives the link, kept moving while the rank waits
  };
  // Collective over `group`, whose ranks have a GPU each.
  NcclLink(Communicator& group, const Rank& rank);
  ~NcclLink() override;
  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  // What the calls that follow belong to, for messages.
  void begin(const Operation& operation);
  // Throws Error(kCommunication) when the communicator has failed.
  void check();

  // Enqueued on the device's stream. Bytes; nothing empty.
  struct Piece {
    int peer;
    std::byte* data;
    int64_t bytes;
    bool receive;
  };
  // Sends and receives that belong together, in one group of NCCL's.
  void exchange(std::span<const Piece> pieces);
  void all_gather(std::byte* out, const std::byte* in, int64_t bytes);
  void broadcast(std::byte* inout, int64_t bytes, int root);

  void waiting() override;
  std::string late_text() override;
  void done() override { pending_ = false; }

 private:
  // A verb, with its place at the time.
  struct Note {
    const char* verb = "";
    std::string group;
    StepContext context;
    int64_t sequence = 0;
  };
  std::string text_of(const Note& note) const;
  NcclId shared_id(Communicator& group);
  void accept(const char* call, int result);
  void settle(const char* call);
  [[noreturn]] void fail_result(const char* call, int result);
  void give_up();

  Rank rank_;
  NcclComm comm_ = nullptr;
  bool failed_ = false;
  bool pending_ = false;  // enqueued and not known to be done
  Note first_, last_;     // of what is pending
};

}  // namespace glm
