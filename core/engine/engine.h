// The step loop over all ranks. The leader (world rank 0) schedules, hands the plan on, collects
// the logits from the last stage, samples and tells its listeners; the other ranks follow the plans
// until one says stop. With a pipeline the leader plans ahead: a step starts before the logits of
// earlier ones are there, when it does not need them (prompt chunks, other sequences). With drafts
// each step is followed by a pass of the MTP layer on the last stage (docs/speculative.md).
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "core/engine/draft_judge.h"
#include "core/engine/sampler.h"
#include "core/engine/scheduler.h"
#include "core/model/model.h"

namespace glm {

// Called on the leader between steps; may call submit(), cancel() and forget(). Any may be empty.
struct EngineListener {
  // A sampled token of a sequence, the end token left out. Returning false ends the answer
  // (FinishReason::kStop).
  std::function<bool(int32_t id, int32_t token)> on_token;
  // Logits [vocabulary] at a position of a sequence that asked for all of them, ascending
  // positions.
  std::function<void(int32_t id, int64_t position, std::span<const float> logits)> on_logits;
  // The sequence has ended; Sequence::finish says how.
  std::function<void(int32_t id)> on_finish;
};

// Wall clock of the leader, from the end of one step to the end of the next. A step with more than
// one row of any sequence counts as prefill.
struct EngineStats {
  int64_t prefill_tokens = 0;  // prompts that were computed again are counted again
  int64_t decode_tokens = 0;   // tokens sampled by decode steps
  int64_t decode_steps = 0;
  int64_t decode_rows = 0;     // sequences of the decode steps, each step counted
  int64_t sampled_tokens = 0;  // by all steps, end tokens included
  int64_t drafts = 0;          // guesses that were verified
  int64_t accepted = 0;        // and were right
  double draft_gain = 0;       // DraftMode::kAuto: DraftJudge::gain(), lasting
  bool gave_up = false;        // likewise: no drafts any more
  double prefill_seconds = 0;
  double decode_seconds = 0;
  double first_token_seconds = 0;  // from the start of run(), or clear_stats()
};

// An answer that is under way, while no step is.
struct AnswerState {
  std::vector<int32_t> tokens;
  int32_t draft = -1;            // the guess of the next one; -1: none
  std::vector<Candidate> guess;  // what it was drawn from
};

// How run() may end before its time, and what is done for a later run. Without `told` there is
// nothing of it. The same on all ranks but for `save`.
struct Pauses {
  // The signal that has told this rank to stop; 0: none. Looked at before each step, and by the
  // leader's question on the other ranks.
  std::function<int()> told;
  // Leader, now and then: no step is under way, what state() tells of the sequences can be kept.
  std::function<void()> save;
  double save_seconds = 0;   // from one save to the next; 0: never
  double ask_seconds = 0.2;  // from one question to the next
};

// For a batch: submit() everything on the leader, then run() on all ranks. For a server:
//   leader:   while (serving) { submit() what has come; if (!engine.step()) wait, or keep_alive();
//   }
//             engine.stop();
//   others:   engine.follow();
class Engine {
 public:
  Engine(ProcessGrid& grid,
         Model& model,
         Device& device,
         const StepLimits& limits,
         int64_t kv_blocks,
         int64_t vocab,
         StepContext& where);

  // Before the first request: whether tokens are guessed by the model's MTP layer, which must be
  // loaded. The limits allow 2 rows and 2 rows with logits at least.
  void use_drafts(DraftMode mode);

  // Leader only, between steps: before run(), between calls of step(), or from a listener. Throws
  // Error(kUsage) for what can never fit. A listener of its own takes the place of run()'s.
  int32_t submit(Request request);
  int32_t submit(Request request, EngineListener listener);
  // Likewise, an answer that goes on: its cache is computed again. Its tokens are below the
  // vocabulary, and their listener is not called.
  int32_t submit(Request request, EngineListener listener, AnswerState state);
  // Leader, in Pauses::save and after run(): of a sequence that has not ended.
  AnswerState state(int32_t id) const;
  // Leader only, likewise: ends a sequence that has not ended (FinishReason::kCancelled).
  void cancel(int32_t id);
  // Leader only: drops a sequence that has ended, with its tokens and its listener, before the next
  // step.
  void forget(int32_t id);

  // Collective: returns on every rank when all submitted sequences have ended. The leader's
  // listener serves the sequences without one of their own.
  void run(const EngineListener& listener);
  // The same, unless a rank is told to stop; returns the signal then, on the leader.
  int run(const EngineListener& listener, const Pauses& pauses);

  // The parts of run(). Leader: one move, a step started or a step's tokens collected; false when
  // there is nothing to do.
  bool step();
  // Leader: tells the other ranks that the job lives; for pauses longer than --timeout.
  void keep_alive();
  // Leader, when step() has returned false: the others leave follow().
  void stop();
  // The other ranks: take part in steps until stop().
  void follow();

  const Sequence& sequence(int32_t id) const { return scheduler_.sequence(id); }
  const Scheduler& scheduler() const { return scheduler_; }
  const EngineStats& stats() const { return stats_; }
  // Starts them anew, and the time to the first token.
  void clear_stats() {
    stats_ = {.draft_gain = stats_.draft_gain, .gave_up = stats_.gave_up};
    start_ = Clock::now();
  }

  // Bytes the engine takes on the leader for collected logits, and for the distributions that
  // drafts were drawn from.
  static int64_t buffer_bytes(const StepLimits& limits, int64_t vocab, bool drafts) {
    const auto candidate = static_cast<int64_t>(sizeof(Candidate));
    return limits.max_logits * vocab * (2 * 4 + (drafts ? candidate / 2 : 0));
  }

 private:
  using Clock = std::chrono::steady_clock;
  // A step whose logits are not collected yet.
  struct InFlight {
    StepPlan plan;
    Tensor local;  // logits of this rank, where it is of the last stage
    bool prefill = false;
  };

  // Whether the other ranks were told to stop: the leader's question travels with a plan, the
  // answers come back ahead of what that plan gives. No step waits for it.
  struct Question {
    bool open = false;     // asked, answers not taken
    bool planned = false;  // the plan it travels with was not collected yet
    size_t waited = 0;     // steps collected since then
    int signal = 0;        // that some rank was told to stop by
    std::chrono::steady_clock::time_point last;
  };

  void drop_forgotten();
  int told() const;
  void rest();
  void ask(StepPlan& plan);
  void answer(const StepPlan& plan);
  void hear(const StepPlan& plan);
  void take_answers();
  void share(const StepPlan& plan);
  StepPlan receive_plan();
  void pass_on(Tensor message);
  void log_pass(const StepPlan& plan);
  void log_end();
  Tensor compute(const StepPlan& plan);
  void launch(StepPlan plan);
  void launch_drafts(const StepPlan& step, bool prefill);
  void retire();
  void count(const InFlight& step, int64_t sampled, double seconds);
  void collect_logits(const StepPlan& plan, Tensor local);
  Tensor on_host(Tensor local);
  void check_logits(const StepPlan& plan) const;
  void sample_step(const StepPlan& plan);
  void sample_sequence(const PlanSequence& step, std::span<const float> rows);
  void hand_logits(Sequence& sequence, const PlanSequence& step, std::span<const float> rows);
  bool serves(const Sequence& sequence, const PlanSequence& step) const;
  bool verify(Sequence& sequence, const PlanSequence& step, std::span<const float> logits);
  bool deliver(Sequence& sequence, int32_t token);
  void take_guesses(const StepPlan& pass);
  bool accept(const Sequence& sequence, int32_t token);
  void end(int32_t id, FinishReason reason);
  const EngineListener& listener(int32_t id) const;

  bool leader() const { return grid_.world().rank() == 0; }

  ProcessGrid& grid_;
  Model& model_;
  Device& device_;
  StepContext& where_;
  size_t n_ahead_;
  Scheduler scheduler_;
  Batch batch_;
  int64_t vocab_;
  std::deque<InFlight> in_flight_;  // oldest first
  size_t n_steps_ahead_ = 0;        // of them, draft passes left out
  DraftMode drafts_ = DraftMode::kOff;
  DraftJudge judge_;
  std::vector<int32_t> hidden_places_;                 // free ones of StepPlan::hidden
  std::map<int32_t, std::vector<Candidate>> guesses_;  // what a sequence's draft was drawn from
  Pauses pauses_;
  Question question_;
  EngineListener common_;
  std::map<int32_t, EngineListener> own_;
  std::set<int32_t> forgotten_;  // dropped when no listener of theirs can be at work
  std::vector<float> logits_;    // leader: [rows with logits, vocabulary], in plan order
  Tensor slice_;                 // one tensor rank's columns, on the host
  EngineStats stats_;
  Clock::time_point start_;    // of the statistics
  Clock::time_point retired_;  // end of the last step, or of a pause
};

}  // namespace glm
