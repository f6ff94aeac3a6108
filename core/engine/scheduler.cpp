// SPDX-License-Identifier: MIT
#include "core/engine/scheduler.h"

#include <algorithm>

#include "core/base/check.h"

namespace glm {
namespace {

int64_t pages(int64_t positions) { return (positions + kKvBlockTokens - 1) / kKvBlockTokens; }

}  // namespace

Scheduler::Scheduler(const StepLimits& limits, int n_data_ranks, int64_t kv_blocks)
    : limits_(limits),
      caches_(static_cast<size_t>(n_data_ranks), BlockAllocator(kv_blocks)),
      load_(static_cast<size_t>(n_data_ranks), 0),
      kv_blocks_(kv_blocks) {}

int32_t Scheduler::submit(Request request) {
  GLM_CHECK(!request.prompt.empty() && request.max_tokens >= 1, "an empty request");
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  if (n_prompt + request.max_tokens > limits_.max_context)
    fail(ExitCode::kUsage,
         "a prompt of {} tokens and {} answer tokens exceed the context of {}; shorten the prompt, "
         "lower --max-tokens or raise --context",
         n_prompt,
         request.max_tokens,
         limits_.max_context);
  if (pages(n_prompt + request.max_tokens) > kv_blocks_)
    fail(ExitCode::kUsage,
         "{} tokens need {} pages of the cache, it has {}",
         n_prompt + request.max_tokens,
         pages(n_prompt + request.max_tokens),
         kv_blocks_);
  Sequence sequence;
  sequence.id = next_id_++;
  sequence.tokens = request.prompt;
  sequence.request = std::move(request);
  waiting_.push_back(sequence.id);
  return sequences_.emplace(sequence.id, std::move(sequence)).first->first;
}

// In order of arrival, to the data rank with the fewest sequences; pages for the longest possible
// answer are taken at once, so that a running sequence never has to give way.
void Scheduler::admit() {
  while (!waiting_.empty()) {
    Sequence& sequence = sequences_.at(waiting_.front());
    const auto rank =
        static_cast<size_t>(std::min_element(load_.begin(), load_.end()) - load_.begin());
    if (load_[rank] >= limits_.max_sequences) return;
    auto blocks = caches_[rank].take(
        pages(static_cast<int64_t>(sequence.request.prompt.size()) + sequence.request.max_tokens));
    if (!blocks) return;
    sequence.blocks = std::move(*blocks);
    sequence.data_rank = static_cast<int32_t>(rank);
    ++load_[rank];
    running_.push_back(sequence.id);
    waiting_.pop_front();
  }
}

PlanSequence Scheduler::plan_sequence(const Sequence& sequence, int64_t n_rows) const {
  PlanSequence out;
  out.id = sequence.id;
  out.data_rank = sequence.data_rank;
  out.position = static_cast<int32_t>(sequence.computed);
  const auto first = sequence.tokens.begin() + sequence.computed;
  out.tokens.assign(first, first + n_rows);
  const int64_t end = sequence.computed + n_rows;
  out.blocks.assign(sequence.blocks.begin(), sequence.blocks.begin() + pages(end));
  const bool complete = end == static_cast<int64_t>(sequence.tokens.size());
  out.n_logits = static_cast<int32_t>(sequence.request.all_logits ? n_rows : complete ? 1 : 0);
  return out;
}

StepPlan Scheduler::schedule() {
  admit();
  StepPlan plan;
  std::vector<int64_t> rows_left(caches_.size(), limits_.max_rows);
  int64_t logits_left = limits_.max_logits;
  // Decoding sequences first: a long prompt must not make the others wait.
  for (const bool decoding : {true, false}) {
    for (const int32_t id : running_) {
      const Sequence& sequence = sequences_.at(id);
      const int64_t missing = static_cast<int64_t>(sequence.tokens.size()) - sequence.computed;
      if ((missing == 1) != decoding) continue;
      int64_t& left = rows_left[static_cast<size_t>(sequence.data_rank)];
      int64_t n_rows = std::min(missing, left);
      if (sequence.request.all_logits) n_rows = std::min(n_rows, logits_left);
      if (n_rows == 0 || logits_left == 0) continue;
      plan.sequences.push_back(plan_sequence(sequence, n_rows));
      left -= n_rows;
      logits_left -= plan.sequences.back().n_logits;
    }
  }
  return plan;
}

void Scheduler::commit(const StepPlan& plan) {
  for (const PlanSequence& step : plan.sequences)
    sequences_.at(step.id).computed = step.position + static_cast<int64_t>(step.tokens.size());
}

void Scheduler::append(int32_t id, int32_t token) { sequences_.at(id).tokens.push_back(token); }

void Scheduler::finish(int32_t id, FinishReason reason) {
  Sequence& sequence = sequences_.at(id);
  sequence.finish = reason;
  const auto rank = static_cast<size_t>(sequence.data_rank);
  caches_[rank].release(sequence.blocks);
  sequence.blocks.clear();
  --load_[rank];
  running_.erase(std::find(running_.begin(), running_.end(), id));
}

}  // namespace glm
