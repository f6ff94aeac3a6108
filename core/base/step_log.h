// What a rank did in each pass through the model, for run records: when, over how many rows, where
// its time went outside of computing, and which experts had how many rows. Engine, layers and
// communicators write it while a job records itself. One per rank, used by one thread; what it may
// hold is bounded. SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace glm {

class StepLog {
 public:
  enum class Kind : uint8_t { kPrefill, kDecode, kDraft };
  // Time inside collectives, by what they are for. kStage: rows to the next stage and logits to
  // rank 0. kPlan: the plan of the step, and until it comes.
  enum Part : uint8_t { kDispatch, kCombine, kAllReduce, kStage, kPlan, kParts };

  struct Rows {
    int64_t step = 0;
    Kind kind = Kind::kPrefill;
    int32_t own = 0;  // of this rank's data group
    int32_t all = 0;
    int32_t sequences = 0;
  };
  // From the beginning of a pass to that of the next one, or to the end of the work.
  struct Pass {
    Rows rows;
    int32_t run = 0;
    double start = 0;                    // seconds since the log was opened
    double seconds = 0;                  // whole
    std::array<double, kParts> parts{};  // of it
    double wait = 0;                     // of the first three parts, where split_waits() was called
    int64_t sent_bytes = 0;
    int64_t expert_rows = 0;  // pairs of row and expert that this rank computed
  };
  // One collective of a group, for telling waiting from exchanging.
  struct Verb {
    uint32_t pass = 0;
    Part part = kDispatch;
    float seconds = 0;
  };
  struct Limits {
    size_t passes = 100000;
    size_t verbs = 1000000;   // of all groups
    size_t traced = 2000000;  // entries of expert_trace()
    int64_t first_layer = 0;  // of this rank
    int64_t n_layers = 0;
    int64_t n_experts = 0;  // of this rank; 0: there are none, or another rank counts them
  };

  explicit StepLog(const Limits& limits);

  void begin_pass(const Rows& rows);  // ends the one before
  void end_pass();
  // Passes from now on belong to the next run of a benchmark.
  void begin_run() { ++run_; }
  // A verb of a group has taken so long. part: StepContext::part. Outside of passes: nothing.
  void add_verb(std::string_view group, std::string_view part, double seconds, int64_t sent_bytes);
  // offsets: where the rows of each of this rank's experts begin, and the end.
  void add_experts(int64_t layer, std::span<const int32_t> offsets);

  // Of each group by name, in the order in which this rank called it.
  const std::vector<std::pair<std::string, std::vector<Verb>>>& verbs() const { return verbs_; }
  // least[i]: the shortest time that any rank of the group was in its i-th verb. That rank came
  // last, so what the others took beyond it was waiting: it moves from the verbs' parts to `wait`.
  void split_waits(std::string_view group, std::span<const float> least);

  const std::vector<Pass>& passes() const { return passes_; }
  int64_t left_out() const { return left_out_; }  // passes beyond the limits
  // Rows of each of this rank's layers and experts, [2 (prefill, decode), n_layers, n_experts].
  const std::vector<int64_t>& expert_counts() const { return counts_; }
  // The same of single passes, the first ones: [traced_passes(), n_layers, n_experts].
  const std::vector<int32_t>& expert_trace() const { return trace_; }
  int64_t traced_passes() const { return traced_; }

 private:
  using Clock = std::chrono::steady_clock;
  double now() const { return std::chrono::duration<double>(Clock::now() - opened_).count(); }
  bool full() const;
  size_t layer_entries() const { return static_cast<size_t>(limits_.n_layers * limits_.n_experts); }

  Limits limits_;
  Clock::time_point opened_ = Clock::now();
  std::vector<Pass> passes_;
  std::vector<std::pair<std::string, std::vector<Verb>>> verbs_;
  size_t n_verbs_ = 0;
  std::vector<int64_t> counts_;
  std::vector<int32_t> trace_;
  int64_t traced_ = 0;
  bool tracing_ = false;  // this pass
  bool open_ = false;
  bool full_ = false;
  int32_t run_ = 0;
  int64_t left_out_ = 0;
};

}  // namespace glm
