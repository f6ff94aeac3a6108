// The one loop in which ranks wait. It has the deadline, gives the core away while nothing moves,
// and knows what the rank was doing when the deadline passes. SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/transport.h"

namespace glm {

// The verb of a group, for messages.
struct Operation {
  const char* verb = "";
  const std::string* group = nullptr;
  int64_t sequence = 0;
};

// ", layer 17 (attention), decode step 12"; "" without a context.
std::string place_text(const StepContext* context);

// Runs sets of transfers to their end. Reuses its memory from call to call.
class Progress {
 public:
  // Returns when all transfers are done. Throws Error(kCommunication) when nothing moved for
  // options.timeout_seconds, or when the transport failed; nothing is left in flight then.
  void run(Transport& transport,
           int tag,
           std::span<const Transfer> transfers,
           const Operation& operation,
           const CommOptions& options);
  // The two halves of run(); the transfers stay where they are in between. One set is under way on
  // a transport at a time.
  void start(Transport& transport,
             int tag,
             std::span<const Transfer> transfers,
             const Operation& operation,
             const CommOptions& options);
  void finish(Transport& transport,
              std::span<const Transfer> transfers,
              const Operation& operation,
              const CommOptions& options);

  // Returns when the transport has taken the bytes over.
  void post(Transport& transport,
            int tag,
            const Transfer& send,
            const Operation& operation,
            const CommOptions& options);

 private:
  void wait(Transport& transport,
            std::span<const Transfer> transfers,
            const Operation& operation,
            const CommOptions& options);

  std::vector<uint8_t> done_;
};

}  // namespace glm
