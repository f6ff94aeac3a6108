// The leader's part of a step: from collected logits to tokens, drafts and their verdicts.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "core/base/finite.h"
#include "core/engine/engine.h"

namespace glm {

// Every row of the step, also those that nobody samples from.
void Engine::check_logits(const StepPlan& plan) const {
  const std::span<const float> rows(logits_.data(), static_cast<size_t>(plan.n_logits() * vocab_));
  const int64_t at = first_not_finite(rows);
  if (at < 0) return;
  fail(ExitCode::kNumerical,
       "the logits are not finite: token {} has {}. The layers' outputs were finite: final norm or "
       "head is broken (--ops checked finds the operation)",
       at % vocab_,
       rows[static_cast<size_t>(at)]);
}

void Engine::sample_step(const StepPlan& plan) {
  const auto vocab = static_cast<size_t>(vocab_);
  size_t row = 0;
  for (const PlanSequence& step : plan.sequences) {
    const auto n_logits = static_cast<size_t>(step.n_logits);
    sample_sequence(step, std::span(logits_.data() + row * vocab, n_logits * vocab));
    row += n_logits;
  }
}

// A sequence may have ended, or given its pages back, since the step was planned. Logits behind all
// that is known of it serve in any case.
void Engine::sample_sequence(const PlanSequence& step, std::span<const float> rows) {
  const auto vocab = static_cast<size_t>(vocab_);
  Sequence* sequence = scheduler_.find(step.id);
  if (sequence == nullptr || step.n_logits == 0) return;
  if (sequence->request.all_logits) hand_logits(*sequence, step, rows);
  if (sequence->finish != FinishReason::kNone || !serves(*sequence, step)) return;
  // With a draft the row before the last is the one behind all that is known.
  if (step.n_drafts > 0 && !verify(*sequence, step, rows.last(2 * vocab).first(vocab))) return;
  deliver(*sequence,
          sample(rows.last(vocab),
                 sequence->request.sampling,
                 sequence->tokens,
                 static_cast<uint64_t>(sequence->n_generated())));
}

void Engine::hand_logits(Sequence& sequence,
                         const PlanSequence& step,
                         std::span<const float> rows) {
  const auto vocab = static_cast<size_t>(vocab_);
  const int64_t end = step.position + static_cast<int64_t>(step.tokens.size());
  for (int64_t position = end - step.n_logits; position < end; ++position) {
    if (sequence.finish != FinishReason::kNone) return;
    if (position < sequence.logits_given) continue;
    sequence.logits_given = position + 1;
    const auto i = static_cast<size_t>(position - (end - step.n_logits));
    if (const auto& on_logits = listener(step.id).on_logits)
      on_logits(step.id, position, rows.subspan(i * vocab, vocab));
  }
}

// Whether the step ends with all that is known of the sequence, and its draft if it has one. With
// drafts a step counts only when the MTP layer can follow it: else the sequence, which has lost its
// pages, would go on without a draft where it has one elsewhere, and draw other tokens.
bool Engine::serves(const Sequence& sequence, const PlanSequence& step) const {
  const int64_t end = step.position + static_cast<int64_t>(step.tokens.size());
  const int32_t n_drafts = sequence.draft >= 0 ? 1 : 0;
  if (step.n_drafts != n_drafts ||
      end != static_cast<int64_t>(sequence.tokens.size()) + step.n_drafts ||
      (n_drafts > 0 && step.tokens.back() != sequence.draft))
    return false;
  return !sequence.drafts || scheduler_.can_draft_behind(sequence, step);
}

// The token behind the known ones, by logits and draft; whether it is the draft and the sequence
// goes on.
bool Engine::verify(Sequence& sequence, const PlanSequence& step, std::span<const float> logits) {
  const SamplingParams& sampling = sequence.request.sampling;
  const Verdict verdict = verify_draft(distribution(logits, sampling, sequence.tokens),
                                       guesses_.at(sequence.id),
                                       step.tokens.back(),
                                       sampling.seed,
                                       static_cast<uint64_t>(sequence.n_generated()));
  ++stats_.drafts;
  stats_.accepted += verdict.accepted ? 1 : 0;
  if (!verdict.accepted) scheduler_.refuse_draft(sequence.id);
  return deliver(sequence, verdict.token) && verdict.accepted;
}

// Appends a sampled token; whether the sequence goes on.
bool Engine::deliver(Sequence& sequence, int32_t token) {
  ++stats_.sampled_tokens;
  const bool goes_on = accept(sequence, token);
  if (sequence.finish != FinishReason::kNone) return false;  // cancelled by its listener
  if (goes_on && sequence.n_generated() < sequence.request.max_tokens) return true;
  this->end(sequence.id, goes_on ? FinishReason::kLength : FinishReason::kStop);
  return false;
}

// What the MTP layer says: a draft for each sequence that awaits one.
void Engine::take_guesses(const StepPlan& pass) {
  const auto vocab = static_cast<size_t>(vocab_);
  size_t row = 0;
  for (const PlanSequence& part : pass.sequences) {
    if (part.n_logits == 0) continue;
    const std::span<const float> logits(logits_.data() + row++ * vocab, vocab);
    const Sequence* sequence = scheduler_.find(part.id);
    if (sequence == nullptr || sequence->finish != FinishReason::kNone) continue;
    const SamplingParams& sampling = sequence->request.sampling;
    std::vector<Candidate>& guess = guesses_[part.id];
    guess = distribution(logits, sampling, sequence->tokens);
    scheduler_.set_draft(
        part.id,
        draw(guess, sampling.seed, "draft", static_cast<uint64_t>(sequence->n_generated())));
  }
}

// Whether the sequence goes on after `token`.
bool Engine::accept(const Sequence& sequence, int32_t token) {
  const std::vector<int32_t>& stops = sequence.request.stop_ids;
  if (std::find(stops.begin(), stops.end(), token) != stops.end()) return false;
  scheduler_.append(sequence.id, token);
  const auto& on_token = listener(sequence.id).on_token;
  return !on_token || on_token(sequence.id, token);
}

}  // namespace glm
