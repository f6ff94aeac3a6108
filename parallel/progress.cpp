// SPDX-License-Identifier: MIT
#include "parallel/progress.h"

#include <algorithm>

#include "parallel/idle_loop.h"

namespace glm {
namespace {

constexpr size_t kPeersNamed = 8;

// The peers that have not delivered, or, if all have, those that have not taken.
std::string peers_text(std::span<const Transfer> transfers, std::span<const uint8_t> done) {
  std::vector<int> senders, receivers;
  for (size_t i = 0; i < transfers.size(); ++i)
    if (done[i] == 0) (transfers[i].receive ? senders : receivers).push_back(transfers[i].peer);
  std::vector<int>& peers = senders.empty() ? receivers : senders;
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  std::string text;
  for (size_t i = 0; i < std::min(peers.size(), kPeersNamed); ++i)
    text += fmt::format("{}rank {}", i == 0 ? "" : ", ", peers[i]);
  if (peers.size() > kPeersNamed) text += fmt::format(" and {} others", peers.size() - kPeersNamed);
  return senders.empty() ? text + " to receive" : text;
}

}  // namespace

std::string place_text(const StepContext* context) {
  if (context == nullptr) return {};
  std::string text;
  const std::string part = context->part;
  if (context->layer >= 0) {
    text = fmt::format(", layer {}", context->layer);
    if (!part.empty()) text += fmt::format(" ({})", part);
  } else {
    text = part.empty() ? ", no layer" : fmt::format(", no layer ({})", part);
  }
  return text + fmt::format(", {} step {}", context->phase, context->step);
}

namespace {

std::string where_text(const Operation& operation, const CommOptions& options) {
  return fmt::format("in {} of group {}{}, seq {}",
                     operation.verb,
                     *operation.group,
                     place_text(options.context),
                     operation.sequence);
}

[[noreturn]] void fail_deadline(const Transport& transport,
                                const std::string& peers,
                                const Operation& operation,
                                const CommOptions& options) {
  const std::string stalled = transport.stalled_text();
  fail(ExitCode::kCommunication,
       "{} waited {:.3g} s {}; waiting for {}{}{}",
       transport.rank_text(transport.rank()),
       options.timeout_seconds,
       where_text(operation, options),
       peers,
       stalled.empty() ? "" : "; ",
       stalled);
}

}  // namespace

void Progress::run(Transport& transport,
                   int tag,
                   std::span<const Transfer> transfers,
                   const Operation& operation,
                   const CommOptions& options) {
  start(transport, tag, transfers, operation, options);
  finish(transport, transfers, operation, options);
}

void Progress::start(Transport& transport,
                     int tag,
                     std::span<const Transfer> transfers,
                     const Operation& operation,
                     const CommOptions& options) {
  GLM_CHECK(!transport.under_way(),
            "{} of group {} before the rank has waited for its all_to_all",
            operation.verb,
            *operation.group);
  if (transfers.empty()) return;
  done_.assign(transfers.size(), 0);
  transport.note(operation.verb, options.context);
  transport.set_under_way(true);
  try {
    transport.start(tag, transfers);
  } catch (...) {
    transport.give_up();
    throw;
  }
}

void Progress::finish(Transport& transport,
                      std::span<const Transfer> transfers,
                      const Operation& operation,
                      const CommOptions& options) {
  if (transfers.empty()) return;
  try {
    wait(transport, transfers, operation, options);
  } catch (...) {
    transport.give_up();
    throw;
  }
  transport.set_under_way(false);
}

void Progress::post(Transport& transport,
                    int tag,
                    const Transfer& send,
                    const Operation& operation,
                    const CommOptions& options) {
  if (transport.try_post(tag, send)) return;
  transport.note(operation.verb, options.context);
  IdleLoop loop(transport.crowded(), transport.rivals());
  while (!transport.try_post(tag, send)) {
    loop.idle();
    if (loop.waited() >= options.timeout_seconds)
      fail_deadline(transport, fmt::format("rank {} to receive", send.peer), operation, options);
  }
}

void Progress::wait(Transport& transport,
                    std::span<const Transfer> transfers,
                    const Operation& operation,
                    const CommOptions& options) {
  IdleLoop loop(transport.crowded(), transport.rivals());
  while (true) {
    bool moved = false;
    try {
      moved = transport.poll(done_);
    } catch (const ReleasedError&) {
      throw;
    } catch (const Error& error) {
      fail(error.code(), "{} {}", error.what(), where_text(operation, options));
    }
    if (moved) {
      if (std::all_of(done_.begin(), done_.end(), [](uint8_t done) { return done != 0; })) return;
      loop.moved();
      continue;
    }
    loop.idle();
    if (loop.waited() < options.timeout_seconds) continue;
    fail_deadline(transport, peers_text(transfers, done_), operation, options);
  }
}

}  // namespace glm
