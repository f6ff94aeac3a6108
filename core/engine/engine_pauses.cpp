// Runs that end before their time: every rank may be told to stop, the leader decides between
// steps, and what is under way is kept for a later run (docs/operations.md).
// SPDX-License-Identifier: MIT
#include <utility>

#include "core/engine/engine.h"

namespace glm {
namespace {

// Signals have smaller numbers.
constexpr int kMostSignals = 128;

double seconds_from(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int Engine::run(const EngineListener& listener, const Pauses& pauses) {
  pauses_ = pauses;
  question_ = {};
  if (!leader()) {
    follow();
    pauses_ = {};
    return 0;
  }
  common_ = listener;
  start_ = retired_ = Clock::now();
  Clock::time_point saved = start_;
  int signal = 0;
  while (true) {
    signal = told();
    const bool save = pauses_.save_seconds > 0 && seconds_from(saved) >= pauses_.save_seconds;
    if (signal != 0 || save) rest();
    if (signal != 0) break;
    if (save) {
      pauses_.save();
      saved = Clock::now();
    }
    if (!step()) break;
  }
  const bool ended = scheduler_.idle();
  stop();
  common_ = {};
  pauses_ = {};
  return ended ? 0 : signal;
}

int32_t Engine::submit(Request request, EngineListener listener, AnswerState state) {
  const int32_t id = submit(std::move(request), std::move(listener));
  scheduler_.go_on(id, state.tokens, state.draft);
  if (state.draft >= 0) guesses_[id] = std::move(state.guess);
  return id;
}

AnswerState Engine::state(int32_t id) const {
  const Sequence& sequence = scheduler_.sequence(id);
  GLM_CHECK(in_flight_.empty() && !sequence.draft_awaited, "steps are under way");
  AnswerState state;
  state.tokens.assign(
      sequence.tokens.begin() + static_cast<int64_t>(sequence.request.prompt.size()),
      sequence.tokens.end());
  state.draft = sequence.draft;
  if (state.draft >= 0) state.guess = guesses_.at(id);
  return state;
}

int Engine::told() const {
  const int own = pauses_.told ? pauses_.told() : 0;
  return own != 0 ? own : question_.signal;
}

// Collects what is under way and begins nothing.
void Engine::rest() {
  while (!in_flight_.empty()) retire();
  drop_forgotten();
  log_end();
}

void Engine::ask(StepPlan& plan) {
  if (!pauses_.told || grid_.world().size() == 1 || question_.open ||
      seconds_from(question_.last) < pauses_.ask_seconds)
    return;
  plan.ask = question_.open = question_.planned = true;
  question_.last = Clock::now();
}

// At once, so that it is on its way before the rank computes, or waits for the stage before it.
void Engine::answer(const StepPlan& plan) {
  if (!plan.ask) return;
  int32_t signal = pauses_.told ? pauses_.told() : 0;
  grid_.world().post(host_tensor(&signal, DType::kI32, {1}), 0);
}

// A rank's messages arrive in their order: its answer behind the logits of earlier plans, and
// before those of this one. Where a step gives no logits, a rank of a later stage may still be busy
// with earlier ones; then the answers are taken when it has had the time to get there.
void Engine::hear(const StepPlan& plan) {
  if (!question_.open || (question_.planned && !plan.ask)) return;
  if (question_.planned) question_.waited = 0;
  question_.planned = false;
  if (plan.n_logits() > 0 || n_ahead_ == 1 || ++question_.waited > n_ahead_) take_answers();
}

void Engine::take_answers() {
  if (!question_.open) return;
  where_.part = "plan";
  for (int rank = 1; rank < grid_.world().size(); ++rank) {
    int32_t signal = 0;
    grid_.world().recv(host_tensor(&signal, DType::kI32, {1}), rank);
    if (signal < 0 || signal >= kMostSignals)
      fail(ExitCode::kCommunication, "rank {} says it was told to stop by signal {}", rank, signal);
    if (question_.signal == 0) question_.signal = signal;
  }
  question_.open = false;
}

}  // namespace glm
