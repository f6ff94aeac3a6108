// SPDX-License-Identifier: MIT
#include "core/engine/engine.h"

#include <algorithm>
#include <chrono>

#include "core/base/fault.h"

namespace glm {
namespace {

// A plan is one message when it fits: most steps decode a few sequences.
constexpr int64_t kHeaderInts = 256;
// No plan comes near; a longer one is a broken message, which must not be waited for.
constexpr int64_t kLongestPlan = int64_t{1} << 24;

double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

bool is_prefill(const StepPlan& plan) {
  return std::any_of(plan.sequences.begin(), plan.sequences.end(), [](const PlanSequence& s) {
    return static_cast<int64_t>(s.tokens.size()) - s.n_drafts > 1;
  });
}

// A binomial tree under rank 0: a rank is told by the one whose number lacks its lowest bit.
// Tellers have lower ranks, so they are of the same stage or an earlier one, and never wait for
// those they tell.
int lowest_bit(int rank) { return rank & -rank; }

}  // namespace

Engine::Engine(ProcessGrid& grid,
               Model& model,
               Device& device,
               const StepLimits& limits,
               int64_t kv_blocks,
               int64_t vocab,
               StepContext& where)
    : grid_(grid),
      model_(model),
      device_(device),
      where_(where),
      n_ahead_(static_cast<size_t>(grid.shape().pipeline)),
      scheduler_(limits, grid.shape().data, kv_blocks, grid.shape().pipeline),
      batch_(device, limits),
      vocab_(vocab) {
  if (leader() || (grid.last_stage() && !device.is_host()))
    slice_ = device.allocate_host(DType::kF32, {limits.max_logits * vocab});
  if (leader()) logits_.resize(static_cast<size_t>(limits.max_logits * vocab));
}

void Engine::use_drafts(DraftMode mode) {
  drafts_ = mode;
  if (mode == DraftMode::kOff) return;
  for (int64_t i = kept_hidden_steps(grid_.shape()) - 1; i >= 0; --i)
    hidden_places_.push_back(static_cast<int32_t>(i));
}

int32_t Engine::submit(Request request) {
  request.draft = drafts_ == DraftMode::kOn ||
                  (drafts_ == DraftMode::kAuto && request.sampling.temperature == 0);
  return scheduler_.submit(std::move(request));
}

int32_t Engine::submit(Request request, EngineListener listener) {
  const int32_t id = submit(std::move(request));
  own_.emplace(id, std::move(listener));
  return id;
}

void Engine::cancel(int32_t id) {
  const Sequence* sequence = scheduler_.find(id);
  if (sequence != nullptr && sequence->finish == FinishReason::kNone)
    end(id, FinishReason::kCancelled);
}

void Engine::forget(int32_t id) {
  GLM_CHECK(scheduler_.sequence(id).finish != FinishReason::kNone, "sequence {} has not ended", id);
  forgotten_.insert(id);
}

void Engine::drop_forgotten() {
  for (const int32_t id : forgotten_) {
    scheduler_.forget(id);
    own_.erase(id);
  }
  forgotten_.clear();
}

const EngineListener& Engine::listener(int32_t id) const {
  const auto own = own_.find(id);
  return own == own_.end() ? common_ : own->second;
}

void Engine::end(int32_t id, FinishReason reason) {
  scheduler_.finish(id, reason);
  guesses_.erase(id);
  if (const auto& on_finish = listener(id).on_finish) on_finish(id);
}

void Engine::run(const EngineListener& listener) { run(listener, {}); }

bool Engine::step() {
  drop_forgotten();
  if (in_flight_.empty()) retired_ = Clock::now();
  // Logits that lie on this rank last until its next pass.
  if (grid_.last_stage() ? in_flight_.empty() : n_steps_ahead_ < n_ahead_) {
    StepPlan plan = scheduler_.schedule();
    if (!plan.sequences.empty()) {
      launch(std::move(plan));
      return true;
    }
  }
  if (!in_flight_.empty()) {
    retire();
    return true;
  }
  GLM_CHECK(scheduler_.idle(), "no sequence can go on");
  log_end();
  return false;
}

void Engine::keep_alive() { share({}); }

void Engine::stop() {
  take_answers();
  StepPlan plan;
  plan.stop = true;
  share(plan);
  where_.phase = "idle";
}

void Engine::follow() {
  while (true) {
    const StepPlan plan = receive_plan();
    if (plan.stop) break;
    answer(plan);
    if (plan.sequences.empty()) {  // the leader has nothing to do
      log_end();
      continue;
    }
    log_pass(plan);
    collect_logits(plan, compute(plan));
  }
  log_end();
  where_.phase = "idle";
}

// Length first, then as many integers as fit beside it, the rest in a second message.
void Engine::share(const StepPlan& plan) {
  where_.part = "plan";
  std::vector<int32_t> data = plan.serialized();
  const auto length = static_cast<int64_t>(data.size());
  std::vector<int32_t> header(kHeaderInts, 0);
  header[0] = static_cast<int32_t>(length);
  std::copy_n(data.begin(), std::min(length, kHeaderInts - 1), header.begin() + 1);
  pass_on(host_tensor(header.data(), DType::kI32, {kHeaderInts}));
  if (length > kHeaderInts - 1) pass_on(host_tensor(data.data(), DType::kI32, {length}));
}

StepPlan Engine::receive_plan() {
  where_.part = "plan";
  Communicator& world = grid_.world();
  const int teller = world.rank() - lowest_bit(world.rank());
  std::vector<int32_t> header(kHeaderInts, 0);
  const Tensor message = host_tensor(header.data(), DType::kI32, {kHeaderInts});
  world.recv(message, teller);
  fault_point({"plan", world.rank(), where_.step + 1}, message);
  pass_on(message);
  const int64_t length = header[0];
  if (length > kLongestPlan)
    fail(ExitCode::kCommunication, "what arrived says to be a step plan of {} integers", length);
  if (length <= kHeaderInts - 1)
    return StepPlan::deserialized(
        std::span(header).subspan(1, static_cast<size_t>(std::max<int64_t>(length, 0))));
  std::vector<int32_t> data(static_cast<size_t>(length));
  const Tensor rest = host_tensor(data.data(), DType::kI32, {length});
  world.recv(rest, teller);
  pass_on(rest);
  return StepPlan::deserialized(data);
}

// Posted: a rank of a later stage is still busy with an earlier step.
void Engine::pass_on(Tensor message) {
  Communicator& world = grid_.world();
  int distance = 1;
  while (distance < world.size() && (world.rank() & distance) == 0) distance *= 2;
  for (distance /= 2; distance > 0; distance /= 2)
    if (world.rank() + distance < world.size()) world.post(message, world.rank() + distance);
}

// For run records: from here to the next call, or to log_end(), this rank is at this step. A draft
// pass is the last stage's alone; elsewhere its time is that of the step before.
void Engine::log_pass(const StepPlan& plan) {
  if (where_.log == nullptr || (plan.draft && !grid_.last_stage())) return;
  StepLog::Rows rows;
  rows.step = where_.step + (plan.draft ? 0 : 1);
  rows.kind = plan.draft         ? StepLog::Kind::kDraft
              : is_prefill(plan) ? StepLog::Kind::kPrefill
                                 : StepLog::Kind::kDecode;
  for (const PlanSequence& s : plan.sequences) {
    const auto n = static_cast<int32_t>(s.tokens.size());
    rows.all += n;
    if (s.data_rank == grid_.coord().data) rows.own += n;
  }
  rows.sequences = static_cast<int32_t>(plan.sequences.size());
  where_.log->begin_pass(rows);
}

void Engine::log_end() {
  if (where_.log != nullptr) where_.log->end_pass();
}

Tensor Engine::compute(const StepPlan& plan) {
  if (plan.draft) {
    if (!grid_.last_stage()) return {};
    where_.phase = "draft";
    batch_.fill(plan, grid_.coord().data);
    return model_.draft(batch_);
  }
  ++where_.step;
  where_.phase = is_prefill(plan) ? "prefill" : "decode";
  batch_.fill(plan, grid_.coord().data);
  const Tensor local = model_.forward(batch_);
  where_.part = "logits";
  return local;
}

void Engine::launch(StepPlan plan) {
  const bool drafts =
      std::any_of(plan.sequences.begin(), plan.sequences.end(), [&](const PlanSequence& s) {
        return scheduler_.sequence(s.id).drafts;
      });
  if (drafts) {
    plan.hidden = hidden_places_.back();
    hidden_places_.pop_back();
  }
  ask(plan);
  log_pass(plan);
  share(plan);
  const Tensor local = compute(plan);
  const bool prefill = is_prefill(plan);
  in_flight_.push_back({std::move(plan), local, prefill});
  ++n_steps_ahead_;
  // Chunks in the middle of prompts have nothing to collect.
  while (!in_flight_.empty() && in_flight_.front().plan.n_logits() == 0) retire();
}

// The MTP layer's part of a step, as soon as its tokens are known. All ranks run plans in their
// order, so the place of the hidden states is free for later steps.
void Engine::launch_drafts(const StepPlan& step, bool prefill) {
  const bool guess = drafts_ == DraftMode::kOn || judge_.wants_drafts();
  hidden_places_.push_back(step.hidden);
  StepPlan pass = scheduler_.plan_drafts(step, guess);
  if (pass.sequences.empty()) return;
  log_pass(pass);
  share(pass);
  const Tensor local = compute(pass);
  in_flight_.push_back({std::move(pass), local, prefill});
  if (in_flight_.back().plan.n_logits() > 0) return;
  // Nothing comes of it. Its time shall not be that of the next step.
  device_.wait();
  const Clock::time_point now = Clock::now();
  count(in_flight_.back(), 0, seconds(now - retired_));
  retired_ = now;
  in_flight_.pop_back();
}

// The end of the oldest step, or draft pass.
void Engine::retire() {
  const InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  if (!step.plan.draft) --n_steps_ahead_;
  hear(step.plan);
  collect_logits(step.plan, step.local);
  where_.part = "sampling";
  fault_point({"sampling", grid_.world().rank(), where_.step},
              host_tensor(logits_.data(), DType::kF32, {step.plan.n_logits() * vocab_}));
  check_logits(step.plan);
  const int64_t sampled = stats_.sampled_tokens;
  if (step.plan.draft)
    take_guesses(step.plan);
  else
    sample_step(step.plan);
  const Clock::time_point now = Clock::now();
  if (stats_.sampled_tokens > 0 && stats_.first_token_seconds == 0)
    stats_.first_token_seconds = seconds(now - start_);
  count(step, stats_.sampled_tokens - sampled, seconds(now - retired_));
  retired_ = now;
  if (!step.plan.draft && step.plan.hidden >= 0) launch_drafts(step.plan, step.prefill);
}

void Engine::count(const InFlight& step, int64_t sampled, double seconds) {
  (step.prefill ? stats_.prefill_seconds : stats_.decode_seconds) += seconds;
  int64_t n_rows = 0;
  int64_t n_drafts = 0;
  for (const PlanSequence& s : step.plan.sequences) {
    n_rows += static_cast<int64_t>(s.tokens.size());
    n_drafts += s.n_drafts;
  }
  if (step.plan.draft) {
    if (!step.prefill && step.plan.n_logits() > 0) judge_.add_pass(seconds);
  } else if (step.prefill) {
    stats_.prefill_tokens += n_rows;
  } else {
    stats_.decode_tokens += sampled;
    stats_.decode_rows += n_rows - n_drafts;
    ++stats_.decode_steps;
    judge_.add_step(seconds, sampled, n_drafts > 0);
  }
  if (drafts_ != DraftMode::kAuto) return;
  stats_.draft_gain = judge_.gain();
  stats_.gave_up = judge_.gave_up();
  if (!judge_.gave_up()) return;
  drafts_ = DraftMode::kOff;
  scheduler_.stop_drafts();
}

// The leader takes logits on its host, whatever they were computed on.
Tensor Engine::on_host(Tensor local) {
  if (device_.is_host()) return local;
  const Tensor slice = host_tensor(slice_.data, DType::kF32, {local.rows(), local.cols()});
  device_.copy(slice, local);
  device_.wait();
  return slice;
}

// Every tensor rank of the last stage sends its columns to the leader, which lays whole rows into
// logits_ in the order of the plan. Rows of one data rank travel together.
void Engine::collect_logits(const StepPlan& plan, Tensor local) {
  const GridShape& shape = grid_.shape();
  const GridCoord& coord = grid_.coord();
  const std::vector<int64_t>& widths = model_.vocab_widths();
  Communicator& world = grid_.world();
  device_.wait();
  if (!leader()) {
    if (grid_.last_stage() && local.elements() > 0) world.post(on_host(local), 0);
    return;
  }
  for (int d = 0; d < shape.data; ++d) {
    // Rows of this data rank in the plan's order: where they go in logits_.
    std::vector<int64_t> targets;
    int64_t row = 0;
    for (const PlanSequence& s : plan.sequences)
      for (int32_t i = 0; i < s.n_logits; ++i, ++row)
        if (s.data_rank == d) targets.push_back(row);
    const auto n = static_cast<int64_t>(targets.size());
    int64_t column = 0;
    for (int t = 0; t < shape.tensor; ++t) {
      const int64_t width = widths[static_cast<size_t>(t)];
      const int source = grid_rank(shape, d, shape.pipeline - 1, t);
      const Tensor slice = host_tensor(slice_.data, DType::kF32, {n, width});
      if (n > 0 && width > 0) {
        if (source == world.rank()) {
          GLM_CHECK(coord.data == d && coord.tensor == t, "rank {} holds these logits", source);
          device_.copy(slice, local);
          device_.wait();
        } else {
          world.recv(slice, source);
        }
      }
      for (int64_t i = 0; i < n; ++i)
        std::copy_n(slice.f32() + i * width,
                    width,
                    logits_.begin() + targets[static_cast<size_t>(i)] * vocab_ + column);
      column += width;
    }
  }
}

}  // namespace glm
