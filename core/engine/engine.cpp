// SPDX-License-Identifier: MIT
#include "core/engine/engine.h"

#include <algorithm>
#include <chrono>

#include "core/base/fault.h"
#include "core/base/finite.h"
#include "core/engine/sampler.h"

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
    return s.tokens.size() > 1;
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
  if (!leader()) return;
  logits_.resize(static_cast<size_t>(limits.max_logits * vocab));
  slice_.resize(logits_.size());
}

int32_t Engine::submit(Request request, EngineListener listener) {
  const int32_t id = scheduler_.submit(std::move(request));
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
  if (const auto& on_finish = listener(id).on_finish) on_finish(id);
}

void Engine::run(const EngineListener& listener) {
  if (!leader()) return follow();
  common_ = listener;
  start_ = retired_ = Clock::now();
  while (step()) {
  }
  stop();
  common_ = {};
}

bool Engine::step() {
  drop_forgotten();
  if (in_flight_.empty()) retired_ = Clock::now();
  if (in_flight_.size() < n_ahead_) {
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
  return false;
}

void Engine::keep_alive() { share({}); }

void Engine::stop() {
  StepPlan plan;
  plan.stop = true;
  share(plan);
  where_.phase = "idle";
}

void Engine::follow() {
  while (true) {
    const StepPlan plan = receive_plan();
    if (plan.stop) break;
    if (!plan.sequences.empty()) collect_logits(plan, compute(plan));
  }
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

Tensor Engine::compute(const StepPlan& plan) {
  ++where_.step;
  where_.phase = is_prefill(plan) ? "prefill" : "decode";
  batch_.fill(plan, grid_.coord().data);
  const Tensor local = model_.forward(batch_);
  where_.part = "logits";
  return local;
}

void Engine::launch(StepPlan plan) {
  share(plan);
  const Tensor local = compute(plan);
  const bool prefill = is_prefill(plan);
  in_flight_.push_back({std::move(plan), local, prefill});
  // Chunks in the middle of prompts have nothing to collect.
  while (!in_flight_.empty() && in_flight_.front().plan.n_logits() == 0) retire();
}

// The end of the oldest step.
void Engine::retire() {
  const InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  collect_logits(step.plan, step.local);
  where_.part = "sampling";
  fault_point({"sampling", grid_.world().rank(), where_.step},
              host_tensor(logits_.data(), DType::kF32, {step.plan.n_logits() * vocab_}));
  check_logits(step.plan);
  sample_step(step.plan);
  const Clock::time_point now = Clock::now();
  if (stats_.sampled_tokens > 0 && stats_.first_token_seconds == 0)
    stats_.first_token_seconds = seconds(now - start_);
  int64_t n_rows = 0;
  for (const PlanSequence& s : step.plan.sequences) n_rows += static_cast<int64_t>(s.tokens.size());
  (step.prefill ? stats_.prefill_tokens : stats_.decode_tokens) += n_rows;
  (step.prefill ? stats_.prefill_seconds : stats_.decode_seconds) += seconds(now - retired_);
  stats_.decode_steps += step.prefill ? 0 : 1;
  retired_ = now;
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
    if (grid_.last_stage() && local.elements() > 0) world.post(local, 0);
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
      const Tensor slice = host_tensor(slice_.data(), DType::kF32, {n, width});
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
        std::copy_n(slice_.begin() + i * width,
                    width,
                    logits_.begin() + targets[static_cast<size_t>(i)] * vocab_ + column);
      column += width;
    }
  }
}

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
  const int64_t end = step.position + static_cast<int64_t>(step.tokens.size());
  if (sequence->request.all_logits)
    for (int64_t position = end - step.n_logits; position < end; ++position) {
      if (sequence->finish != FinishReason::kNone) return;
      if (position < sequence->logits_given) continue;
      sequence->logits_given = position + 1;
      const auto i = static_cast<size_t>(position - (end - step.n_logits));
      if (const auto& on_logits = listener(step.id).on_logits)
        on_logits(step.id, position, rows.subspan(i * vocab, vocab));
    }
  if (sequence->finish != FinishReason::kNone ||
      end != static_cast<int64_t>(sequence->tokens.size()))
    return;
  ++stats_.sampled_tokens;
  const int32_t token = sample(rows.last(vocab),
                               sequence->request.sampling,
                               sequence->tokens,
                               static_cast<uint64_t>(sequence->n_generated()));
  const bool goes_on = accept(*sequence, token);
  if (sequence->finish != FinishReason::kNone) return;  // cancelled by its listener
  if (!goes_on)
    this->end(step.id, FinishReason::kStop);
  else if (sequence->n_generated() >= sequence->request.max_tokens)
    this->end(step.id, FinishReason::kLength);
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
