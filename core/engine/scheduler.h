// Who runs next, in integers: admits sequences to data ranks when their pages are free, fills each
// step with one row per decoding sequence and chunks of prompts, and takes pages back from the
// youngest when they run out. Lives on the leader. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "core/engine/block_allocator.h"
#include "core/engine/kept_caches.h"
#include "core/engine/sequence.h"
#include "core/model/batch.h"

namespace glm {

// Plans may be made ahead: all ranks run them in the order of planning, so positions count as
// cached from the moment they are planned, and pages that a later plan takes over are free by the
// time it runs. A sequence whose next token is not known yet is left out until append().
//
// Age decides: a sequence may take pages from younger ones of its data rank, never from older ones.
// So the oldest of a data rank always runs on, and everything that was submitted ends. Who lost its
// pages waits at its place by age, and computes prompt and answer again as one prompt.
//
// A sequence with a draft brings it as one more row behind its last token. The leader then says
// what came of it, by append() and by refuse_draft(); the next plan begins where the cache is
// right.
class Scheduler {
 public:
  // `kv_blocks`: pages of each data rank's cache. `n_ahead`: plans that are meant to be under way
  // at once; decoding sequences are dealt over as many steps.
  Scheduler(const StepLimits& limits, int n_data_ranks, int64_t kv_blocks, int n_ahead = 1);

  // Throws Error(kUsage) when prompt and answer cannot fit the context or the cache, even alone.
  int32_t submit(Request request);
  // A submitted sequence has a part of its answer already, and the guess of what follows (-1:
  // none), as if it had given its pages back.
  void go_on(int32_t id, std::span<const int32_t> answer, int32_t draft);
  // No sequence waits or runs.
  bool idle() const { return waiting_.empty() && running_.empty(); }

  // The next step; rows per data rank stay within the limits. Empty when every running sequence
  // waits for its next token, or when idle.
  StepPlan schedule();
  // Appends a sampled token to a sequence that has not ended.
  void append(int32_t id, int32_t token);
  // Ends a sequence, running or waiting, and frees its pages, or leaves them to a later sequence
  // (Request::keep_cache) as long as nobody else needs them.
  void finish(int32_t id, FinishReason reason);
  // The pass of the MTP layer that follows a step whose tokens are known: at each position of the
  // step that is right, the token behind it. Who goes on with a draft awaits it from now on;
  // guess: whether there shall be any, else the pass only keeps the layer's cache complete.
  StepPlan plan_drafts(const StepPlan& step, bool guess);
  // The guess that came of such a pass.
  void set_draft(int32_t id, int32_t token);
  // The token behind the known ones, not appended yet, is not the draft: its position is computed
  // again.
  void refuse_draft(int32_t id);
  // No passes from now on. Drafts that exist or are awaited are verified as ever.
  void stop_drafts();
  // Whether the MTP layer can follow the sequence behind this step: not when it has lost its pages
  // since the step was planned.
  bool can_draft_behind(const Sequence& sequence, const PlanSequence& step) const {
    return sequence.data_rank == step.data_rank && sequence.drafted >= step.position;
  }
  // Drops what is known of a sequence that has ended.
  void forget(int32_t id);

  const Sequence& sequence(int32_t id) const { return sequences_.at(id); }
  // Null when it was forgotten.
  Sequence* find(int32_t id);

  int64_t n_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t n_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  // How often a sequence had to give its pages back.
  int64_t n_preempted() const { return n_preempted_; }

 private:
  struct Building;

  void admit();
  void place(Sequence& sequence, int data_rank, const std::optional<KeptCaches::Match>& kept);
  void free_kept(int data_rank, int64_t n_free);
  void leave_cache(Sequence& sequence);
  std::vector<int32_t> candidates(bool decoding) const;
  void add(Sequence& sequence, Building& step);
  std::optional<PlanSequence> draft_rows(Sequence& sequence, const PlanSequence& step, bool guess);
  bool grow(Sequence& sequence, int64_t n_blocks, const Building& step);
  void preempt(Sequence& sequence);
  void release(Sequence& sequence);

  StepLimits limits_;
  std::vector<BlockAllocator> caches_;  // per data rank
  KeptCaches kept_;
  std::vector<int64_t> load_;  // running sequences per data rank
  int64_t kv_blocks_;
  int n_ahead_;
  std::map<int32_t, Sequence> sequences_;
  std::set<int32_t> waiting_;     // by age
  std::vector<int32_t> running_;  // in order of admission
  int32_t next_id_ = 0;
  int64_t step_ = 0;
  int64_t n_preempted_ = 0;
};

}  // namespace glm
