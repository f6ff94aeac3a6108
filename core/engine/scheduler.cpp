// SPDX-License-Identifier: MIT
#include "core/engine/scheduler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/base/check.h"

namespace glm {
namespace {

int64_t pages(int64_t positions) { return (positions + kKvBlockTokens - 1) / kKvBlockTokens; }

}  // namespace

// A step while it is put together.
struct Scheduler::Building {
  StepPlan plan;
  std::vector<int64_t> rows_left;      // per data rank
  std::vector<int64_t> decoding_left;  // sequences per data rank
  int64_t logits_left = 0;
};

Scheduler::Scheduler(const StepLimits& limits, int n_data_ranks, int64_t kv_blocks, int n_ahead)
    : limits_(limits),
      caches_(static_cast<size_t>(n_data_ranks), BlockAllocator(kv_blocks)),
      load_(static_cast<size_t>(n_data_ranks), 0),
      kv_blocks_(kv_blocks),
      n_ahead_(n_ahead) {}

int32_t Scheduler::submit(Request request) {
  GLM_CHECK(!request.prompt.empty() && request.max_tokens >= 1, "an empty request");
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  if (n_prompt > limits_.max_context || request.max_tokens > limits_.max_context - n_prompt)
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
  GLM_CHECK(next_id_ < std::numeric_limits<int32_t>::max(), "the ids of sequences are used up");
  Sequence sequence;
  sequence.id = next_id_++;
  sequence.tokens = request.prompt;
  sequence.drafts = request.draft && !request.all_logits;
  sequence.request = std::move(request);
  waiting_.insert(sequence.id);
  return sequences_.emplace(sequence.id, std::move(sequence)).first->first;
}

void Scheduler::go_on(int32_t id, std::span<const int32_t> answer, int32_t draft) {
  Sequence& sequence = sequences_.at(id);
  GLM_CHECK(waiting_.contains(id) && sequence.n_generated() == 0 &&
                std::cmp_less(answer.size(), sequence.request.max_tokens),
            "sequence {} cannot go on with {} tokens",
            id,
            answer.size());
  sequence.tokens.insert(sequence.tokens.end(), answer.begin(), answer.end());
  if (sequence.drafts) sequence.draft = draft;
}

// By age, to the data rank where a cache with the same beginning was left, else to the one with the
// fewest sequences, among those that have the pages for what is known of it, and one more for each
// sequence that is there already and will grow: who is admitted into the last pages would have to
// give them back at once.
void Scheduler::admit() {
  while (!waiting_.empty()) {
    Sequence& sequence = sequences_.at(*waiting_.begin());
    const int64_t needed = pages(static_cast<int64_t>(sequence.tokens.size()));
    const auto kept = sequence.request.all_logits ? std::nullopt : kept_.find(sequence.tokens);
    int best = -1;
    for (int rank = 0; rank < static_cast<int>(caches_.size()); ++rank) {
      const auto r = static_cast<size_t>(rank);
      const int64_t room = caches_[r].n_free() + kept_.n_blocks(rank);
      if (load_[r] >= limits_.max_sequences || room < needed + load_[r]) continue;
      if (best < 0 || load_[r] < load_[static_cast<size_t>(best)]) best = rank;
      if (kept && kept->data_rank == rank) {
        best = rank;
        break;
      }
    }
    if (best < 0) return;
    place(sequence, best, kept);
    ++load_[static_cast<size_t>(best)];
    running_.push_back(sequence.id);
    waiting_.erase(waiting_.begin());
  }
}

// Pages for what is known of the sequence, those of a kept cache first. At least its last token is
// computed: somebody waits for the logits.
void Scheduler::place(Sequence& sequence,
                      int data_rank,
                      const std::optional<KeptCaches::Match>& kept) {
  BlockAllocator& cache = caches_[static_cast<size_t>(data_rank)];
  sequence.data_rank = data_rank;
  const auto n_known = static_cast<int64_t>(sequence.tokens.size());
  if (kept && kept->data_rank == data_rank) {
    KeptCaches::Kept taken = kept_.take(kept->index);
    sequence.computed = std::min(kept->n_tokens, n_known - 1);
    // What the MTP layer has at a position depends on the next token as well.
    if (sequence.drafts)
      sequence.computed = std::min({sequence.computed, kept->n_tokens - 1, taken.drafted});
    sequence.cached = sequence.computed;
    sequence.drafted = sequence.drafts ? sequence.computed : 0;
    sequence.blocks = std::move(taken.blocks);
    const auto used = sequence.blocks.begin() + pages(sequence.computed);
    cache.release({used, sequence.blocks.end()});
    sequence.blocks.erase(used, sequence.blocks.end());
  }
  const int64_t missing = pages(n_known) - static_cast<int64_t>(sequence.blocks.size());
  free_kept(data_rank, missing);
  const std::vector<int32_t> more = *cache.take(missing);
  sequence.blocks.insert(sequence.blocks.end(), more.begin(), more.end());
}

// Gives kept caches up, the oldest first, until so many pages are free or none is left.
void Scheduler::free_kept(int data_rank, int64_t n_free) {
  BlockAllocator& cache = caches_[static_cast<size_t>(data_rank)];
  while (cache.n_free() < n_free) {
    const auto oldest = kept_.take_oldest(data_rank);
    if (!oldest) return;
    cache.release(oldest->blocks);
  }
}

void Scheduler::leave_cache(Sequence& sequence) {
  // Without the position of a draft that nobody has verified.
  const int64_t n = std::min(sequence.computed, static_cast<int64_t>(sequence.tokens.size()));
  const auto used = sequence.blocks.begin() + pages(n);
  KeptCaches::Kept kept;
  kept.tokens.assign(sequence.tokens.begin(), sequence.tokens.begin() + n);
  kept.drafted = std::min(sequence.drafted, n);
  kept.data_rank = sequence.data_rank;
  kept.blocks.assign(sequence.blocks.begin(), used);
  sequence.blocks.erase(sequence.blocks.begin(), used);
  kept_.keep(std::move(kept));
}

// Decoding sequences, those that have waited longest first; or prompts, the oldest first.
std::vector<int32_t> Scheduler::candidates(bool decoding) const {
  std::vector<int32_t> ids;
  for (const int32_t id : running_) {
    const Sequence& sequence = sequences_.at(id);
    const int64_t missing = sequence.missing();
    if (missing > 0 && (missing == 1) == decoding && !sequence.draft_awaited) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    const int64_t step_a = decoding ? sequences_.at(a).last_step : 0;
    const int64_t step_b = decoding ? sequences_.at(b).last_step : 0;
    return step_a < step_b || (step_a == step_b && a < b);
  });
  return ids;
}

StepPlan Scheduler::schedule() {
  admit();
  ++step_;
  Building step;
  step.rows_left.assign(caches_.size(), limits_.max_rows);
  step.logits_left = limits_.max_logits;
  step.decoding_left.assign(caches_.size(), 0);
  // Those whose next token is under way count: with them the groups are of one size.
  for (const int32_t id : running_)
    if (const Sequence& sequence = sequences_.at(id); sequence.missing() <= 1)
      ++step.decoding_left[static_cast<size_t>(sequence.data_rank)];
  for (int64_t& n : step.decoding_left) n = (n + n_ahead_ - 1) / n_ahead_;
  // Decoding sequences first: a long prompt must not make the others wait.
  for (const bool decoding : {true, false})
    for (const int32_t id : candidates(decoding)) {
      Sequence& sequence = sequences_.at(id);
      if (sequence.data_rank < 0) continue;  // gave its pages to an earlier candidate
      int64_t& left = step.decoding_left[static_cast<size_t>(sequence.data_rank)];
      if (decoding && left == 0) continue;
      add(sequence, step);
      if (decoding && sequence.last_step == step_) --left;
    }
  return std::move(step.plan);
}

void Scheduler::add(Sequence& sequence, Building& step) {
  int64_t& left = step.rows_left[static_cast<size_t>(sequence.data_rank)];
  int64_t n_rows = std::min(sequence.missing(), left);
  const bool all_logits = sequence.request.all_logits;
  // Rows in front of those whose logits are wanted.
  const int64_t silent = std::max<int64_t>(0, sequence.request.first_logits - sequence.computed);
  if (all_logits) n_rows = std::min(n_rows, silent + step.logits_left);
  // A draft goes with the last known token: both, or a step without either.
  const bool last = sequence.draft >= 0 && n_rows == sequence.missing();
  const bool verified = last && n_rows < left && step.logits_left >= 2;
  if (last) n_rows += verified ? 1 : -1;
  if (n_rows == 0 || step.logits_left == 0) return;
  const int64_t end = sequence.computed + n_rows;
  if (!grow(sequence, pages(end), step)) return;

  PlanSequence out;
  out.id = sequence.id;
  out.data_rank = sequence.data_rank;
  out.position = static_cast<int32_t>(sequence.computed);
  out.n_drafts = verified ? 1 : 0;
  const auto first = sequence.tokens.begin() + sequence.computed;
  out.tokens.assign(first, first + n_rows - out.n_drafts);
  if (verified) out.tokens.push_back(sequence.draft);
  out.blocks.assign(sequence.blocks.begin(), sequence.blocks.begin() + pages(end));
  const bool complete = end >= static_cast<int64_t>(sequence.tokens.size());
  out.n_logits = static_cast<int32_t>(
      std::max<int64_t>(complete ? 1 + out.n_drafts : 0, all_logits ? n_rows - silent : 0));
  left -= n_rows;
  step.logits_left -= out.n_logits;
  sequence.computed = end;
  sequence.last_step = step_;
  step.plan.sequences.push_back(std::move(out));
}

// Pages up to `n_blocks`, if need be from younger sequences that are not part of this step. False
// when there are none to have: the sequence waits for its elders.
bool Scheduler::grow(Sequence& sequence, int64_t n_blocks, const Building& step) {
  BlockAllocator& cache = caches_[static_cast<size_t>(sequence.data_rank)];
  const int64_t needed = n_blocks - static_cast<int64_t>(sequence.blocks.size());
  if (needed <= 0) return true;
  const auto in_step = [&](int32_t id) {
    return std::any_of(step.plan.sequences.begin(),
                       step.plan.sequences.end(),
                       [id](const PlanSequence& s) { return s.id == id; });
  };
  free_kept(sequence.data_rank, needed);
  while (cache.n_free() < needed) {
    int32_t youngest = sequence.id;
    for (const int32_t id : running_)
      if (id > youngest && sequences_.at(id).data_rank == sequence.data_rank && !in_step(id))
        youngest = id;
    if (youngest == sequence.id) return false;
    preempt(sequences_.at(youngest));
  }
  const std::vector<int32_t> more = *cache.take(needed);
  sequence.blocks.insert(sequence.blocks.end(), more.begin(), more.end());
  return true;
}

void Scheduler::release(Sequence& sequence) {
  const auto rank = static_cast<size_t>(sequence.data_rank);
  caches_[rank].release(sequence.blocks);
  sequence.blocks.clear();
  sequence.data_rank = -1;
  sequence.computed = 0;
  sequence.drafted = 0;
  --load_[rank];
  running_.erase(std::find(running_.begin(), running_.end(), sequence.id));
}

void Scheduler::preempt(Sequence& sequence) {
  release(sequence);
  sequence.cached = 0;
  waiting_.insert(sequence.id);
  ++n_preempted_;
}

Sequence* Scheduler::find(int32_t id) {
  const auto at = sequences_.find(id);
  return at == sequences_.end() ? nullptr : &at->second;
}

void Scheduler::append(int32_t id, int32_t token) {
  Sequence& sequence = sequences_.at(id);
  GLM_CHECK(sequence.finish == FinishReason::kNone, "sequence {} has ended", id);
  sequence.tokens.push_back(token);
  sequence.draft = -1;
}

StepPlan Scheduler::plan_drafts(const StepPlan& step, bool guess) {
  StepPlan plan;
  plan.draft = true;
  plan.hidden = step.hidden;
  std::vector<int32_t> row(caches_.size(), 0);  // of each data rank in the step
  for (const PlanSequence& part : step.sequences) {
    int32_t& first_row = row[static_cast<size_t>(part.data_rank)];
    Sequence* sequence = find(part.id);
    if (sequence != nullptr && sequence->drafts && sequence->finish == FinishReason::kNone &&
        can_draft_behind(*sequence, part))
      if (auto rows = draft_rows(*sequence, part, guess)) {
        rows->hidden_row += first_row;
        plan.sequences.push_back(std::move(*rows));
      }
    first_row += static_cast<int32_t>(part.tokens.size());
  }
  return plan;
}

// Positions of the step behind which a token is known, and whose own token was right: those before
// the last known one. Nothing where the rest of the answer is too short for a draft.
std::optional<PlanSequence> Scheduler::draft_rows(Sequence& sequence,
                                                  const PlanSequence& step,
                                                  bool guess) {
  const auto n_known = static_cast<int64_t>(sequence.tokens.size());
  const int64_t step_end = step.position + static_cast<int64_t>(step.tokens.size());
  const int64_t end = std::min(step_end, n_known - 1);
  if (sequence.n_generated() + 2 > sequence.request.max_tokens) sequence.drafts = false;
  if (!sequence.drafts || end <= sequence.drafted) return std::nullopt;
  PlanSequence rows;
  rows.id = sequence.id;
  rows.data_rank = sequence.data_rank;
  rows.position = static_cast<int32_t>(sequence.drafted);
  rows.hidden_row = rows.position - step.position;
  rows.tokens.assign(sequence.tokens.begin() + sequence.drafted + 1,
                     sequence.tokens.begin() + end + 1);
  rows.blocks.assign(sequence.blocks.begin(), sequence.blocks.begin() + pages(end));
  // Behind a sampled token, and not while a step computes the next one already.
  const bool last = step.n_logits > 0 && end == n_known - 1 && sequence.missing() == 1;
  rows.n_logits = guess && last && !sequence.draft_awaited ? 1 : 0;
  sequence.draft_awaited = sequence.draft_awaited || rows.n_logits > 0;
  sequence.drafted = end;
  return rows;
}

void Scheduler::set_draft(int32_t id, int32_t token) {
  Sequence& sequence = sequences_.at(id);
  sequence.draft = token;
  sequence.draft_awaited = false;
}

void Scheduler::refuse_draft(int32_t id) {
  Sequence& sequence = sequences_.at(id);
  sequence.computed = std::min(sequence.computed, static_cast<int64_t>(sequence.tokens.size()));
}

void Scheduler::stop_drafts() {
  for (auto& [id, sequence] : sequences_) sequence.drafts = false;
}

void Scheduler::finish(int32_t id, FinishReason reason) {
  Sequence& sequence = sequences_.at(id);
  GLM_CHECK(sequence.finish == FinishReason::kNone, "sequence {} has ended", id);
  sequence.finish = reason;
  if (sequence.data_rank >= 0 && sequence.computed > 0 && sequence.request.keep_cache)
    leave_cache(sequence);
  if (sequence.data_rank >= 0)
    release(sequence);
  else
    waiting_.erase(id);
}

void Scheduler::forget(int32_t id) {
  const auto at = sequences_.find(id);
  GLM_CHECK(at != sequences_.end() && at->second.finish != FinishReason::kNone,
            "sequence {} has not ended",
            id);
  sequences_.erase(at);
}

}  // namespace glm
