// SPDX-License-Identifier: MIT
#include "core/engine/draft_judge.h"

#include <algorithm>

namespace glm {
namespace {

// Longest run of steps with drafts between two verdicts.
constexpr int kMostDraftedSteps = 1024;

}  // namespace

void DraftJudge::Part::add(double step_seconds, int64_t step_tokens) {
  ++steps;
  seconds += step_seconds;
  tokens += step_tokens;
  const bool slower = step_seconds * static_cast<double>(slowest_tokens) >
                      slowest_seconds * static_cast<double>(step_tokens);
  if (steps > 1 && !slower) return;
  slowest_seconds = step_seconds;
  slowest_tokens = step_tokens;
}

double DraftJudge::Part::rate() const {
  return static_cast<double>(tokens - slowest_tokens) / std::max(1e-9, seconds - slowest_seconds);
}

void DraftJudge::add_step(double seconds, int64_t tokens, bool drafted) {
  if (gave_up_ || tokens == 0) return;
  // A step that was under way when the other part began.
  if (!drafted && wants_drafts()) return;
  (drafted ? with_ : without_).add(seconds, tokens);
  if (without_.steps == kPlainSteps) judge();
}

void DraftJudge::judge() {
  gain_ = with_.rate() / std::max(1e-9, without_.rate());
  gave_up_ = gain_ < 1;
  drafted_steps_ = std::min(2 * drafted_steps_, kMostDraftedSteps);
  with_ = without_ = {};
}

}  // namespace glm
