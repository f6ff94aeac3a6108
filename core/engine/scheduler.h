// Who runs next, in integers: admits sequences to data ranks when their pages are free, then fills
// each step with one row per decoding sequence and chunks of prompts. Lives on the leader.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "core/engine/block_allocator.h"
#include "core/engine/sequence.h"
#include "core/model/batch.h"

namespace glm {

class Scheduler {
 public:
  // `kv_blocks`: pages of each data rank's cache.
  Scheduler(const StepLimits& limits, int n_data_ranks, int64_t kv_blocks);

  // Throws Error(kUsage) when prompt and answer cannot fit the context or the cache.
  int32_t submit(Request request);
  bool idle() const { return waiting_.empty() && running_.empty(); }

  // The next step; empty sequences only when idle. Rows per data rank stay within the limits.
  StepPlan schedule();
  // The rows of `plan` are in the cache now.
  void commit(const StepPlan& plan);
  // Appends a sampled token to a running sequence.
  void append(int32_t id, int32_t token);
  // Ends a sequence and frees its pages.
  void finish(int32_t id, FinishReason reason);

  const Sequence& sequence(int32_t id) const { return sequences_.at(id); }

 private:
  void admit();
  PlanSequence plan_sequence(const Sequence& sequence, int64_t n_rows) const;

  StepLimits limits_;
  std::vector<BlockAllocator> caches_;  // per data rank
  std::vector<int64_t> load_;           // running sequences per data rank
  int64_t kv_blocks_;
  std::map<int32_t, Sequence> sequences_;
  std::deque<int32_t> waiting_;
  std::vector<int32_t> running_;  // in order of admission
  int32_t next_id_ = 0;
};

}  // namespace glm
