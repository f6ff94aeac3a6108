// The step loop over all ranks. The leader (world rank 0) schedules, broadcasts the plan, collects
// the logits from the last stage, samples and tells its listener; the other ranks follow the plans
// until one says stop. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/engine/scheduler.h"
#include "core/model/model.h"

namespace glm {

// Called on the leader as work goes on. Either may be empty.
struct EngineListener {
  // A sampled token of a sequence, the end token left out. Returning false ends the answer
  // (FinishReason::kStop).
  std::function<bool(int32_t id, int32_t token)> on_token;
  // Logits [vocabulary] at a position of a sequence that asked for all of them, ascending
  // positions.
  std::function<void(int32_t id, int64_t position, std::span<const float> logits)> on_logits;
};

// Wall clock of the leader. A step with more than one row of any sequence counts as prefill.
struct EngineStats {
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;  // tokens sampled by decode steps
  int64_t decode_steps = 0;
  double prefill_seconds = 0;
  double decode_seconds = 0;
  double first_token_seconds = 0;  // from the start of run() to the first sampled token
};

class Engine {
 public:
  Engine(ProcessGrid& grid,
         Model& model,
         Device& device,
         const StepLimits& limits,
         int64_t kv_blocks,
         int64_t vocab,
         StepContext& where);

  // Leader only; before run().
  int32_t submit(Request request) { return scheduler_.submit(std::move(request)); }
  // Collective: returns on every rank when all submitted sequences have ended.
  void run(const EngineListener& listener);

  const Sequence& sequence(int32_t id) const { return scheduler_.sequence(id); }
  const EngineStats& stats() const { return stats_; }
  void clear_stats() { stats_ = {}; }

  // Bytes the engine takes on the leader for collected logits.
  static int64_t buffer_bytes(const StepLimits& limits, int64_t vocab) {
    return 2 * limits.max_logits * vocab * 4;
  }

 private:
  StepPlan share_plan();
  void collect_logits(const StepPlan& plan, Tensor local);
  void sample_step(const StepPlan& plan, const EngineListener& listener);
  bool accept(const Sequence& sequence, int32_t token, const EngineListener& listener);

  bool leader() const { return grid_.world().rank() == 0; }

  ProcessGrid& grid_;
  Model& model_;
  Device& device_;
  StepContext& where_;
  Scheduler scheduler_;
  Batch batch_;
  int64_t vocab_;
  Tensor plan_header_;         // [kHeaderInts] i32
  std::vector<float> logits_;  // leader: [rows with logits, vocabulary], in plan order
  std::vector<float> slice_;   // leader: one tensor rank's columns
  EngineStats stats_;
};

}  // namespace glm
