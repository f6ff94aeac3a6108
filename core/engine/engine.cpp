// SPDX-License-Identifier: MIT
#include "core/engine/engine.h"

#include <algorithm>
#include <chrono>

#include "core/engine/sampler.h"

namespace glm {
namespace {

// A plan is broadcast in one message when it fits: most steps decode a few sequences.
constexpr int64_t kHeaderInts = 256;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

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
      scheduler_(limits, grid.shape().data, kv_blocks),
      batch_(device, limits),
      vocab_(vocab),
      plan_header_(device.allocate(DType::kI32, {kHeaderInts})) {
  if (!leader()) return;
  logits_.resize(static_cast<size_t>(limits.max_logits * vocab));
  slice_.resize(logits_.size());
}

// The leader's plan on every rank: length first, then as many integers as fit beside it, the rest
// in a second message.
StepPlan Engine::share_plan() {
  StepPlan plan;
  std::vector<int32_t> data;
  std::vector<int32_t> header(kHeaderInts, 0);
  if (leader()) {
    if (scheduler_.idle())
      plan.stop = true;
    else
      plan = scheduler_.schedule();
    data = plan.serialized();
    header[0] = static_cast<int32_t>(data.size());
    std::copy_n(data.begin(), std::min<size_t>(data.size(), kHeaderInts - 1), header.begin() + 1);
  }
  where_.part = "plan";
  const Tensor message = host_tensor(header.data(), DType::kI32, {kHeaderInts});
  grid_.world().broadcast(message, 0);
  const int64_t length = header[0];
  if (length > kHeaderInts - 1) {
    data.resize(static_cast<size_t>(length));
    grid_.world().broadcast(host_tensor(data.data(), DType::kI32, {length}), 0);
  }
  if (leader()) return plan;
  if (length <= kHeaderInts - 1)
    return StepPlan::deserialized(std::span(header).subspan(1, static_cast<size_t>(length)));
  return StepPlan::deserialized(data);
}

void Engine::run(const EngineListener& listener) {
  const auto start = std::chrono::steady_clock::now();
  bool first = true;
  while (true) {
    const auto step_start = std::chrono::steady_clock::now();
    const StepPlan plan = share_plan();
    if (plan.stop) break;
    ++where_.step;
    const bool prefill = std::any_of(plan.sequences.begin(),
                                     plan.sequences.end(),
                                     [](const PlanSequence& s) { return s.tokens.size() > 1; });
    where_.phase = prefill ? "prefill" : "decode";
    batch_.fill(plan, grid_.coord().data);
    const Tensor local = model_.forward(batch_);
    where_.part = "logits";
    collect_logits(plan, local);
    if (!leader()) continue;

    scheduler_.commit(plan);
    sample_step(plan, listener);
    if (first && plan.n_logits() > 0) {
      stats_.first_token_seconds = seconds_since(start);
      first = false;
    }
    int64_t n_rows = 0;
    for (const PlanSequence& s : plan.sequences) n_rows += static_cast<int64_t>(s.tokens.size());
    if (prefill) {
      stats_.prefill_tokens += n_rows;
      stats_.prefill_seconds += seconds_since(step_start);
    } else {
      stats_.decode_tokens += n_rows;
      ++stats_.decode_steps;
      stats_.decode_seconds += seconds_since(step_start);
    }
  }
  where_.phase = "idle";
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
    if (grid_.last_stage() && local.elements() > 0) world.send(local, 0);
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

void Engine::sample_step(const StepPlan& plan, const EngineListener& listener) {
  const auto vocab = static_cast<size_t>(vocab_);
  size_t row = 0;
  for (const PlanSequence& step : plan.sequences) {
    const Sequence& sequence = scheduler_.sequence(step.id);
    const auto n_logits = static_cast<size_t>(step.n_logits);
    const std::span<const float> rows(logits_.data() + row * vocab, n_logits * vocab);
    row += n_logits;
    if (sequence.request.all_logits && listener.on_logits)
      for (size_t i = 0; i < n_logits; ++i)
        listener.on_logits(step.id,
                           step.position + static_cast<int64_t>(step.tokens.size() - n_logits + i),
                           rows.subspan(i * vocab, vocab));
    const bool complete = sequence.computed == static_cast<int64_t>(sequence.tokens.size());
    if (!complete || n_logits == 0) continue;
    const int32_t token = sample(rows.last(vocab),
                                 sequence.request.sampling,
                                 sequence.tokens,
                                 static_cast<uint64_t>(sequence.n_generated()));
    if (!accept(sequence, token, listener))
      scheduler_.finish(step.id, FinishReason::kStop);
    else if (sequence.n_generated() >= sequence.request.max_tokens)
      scheduler_.finish(step.id, FinishReason::kLength);
  }
}

// Whether the sequence goes on after `token`.
bool Engine::accept(const Sequence& sequence, int32_t token, const EngineListener& listener) {
  const std::vector<int32_t>& stops = sequence.request.stop_ids;
  if (std::find(stops.begin(), stops.end(), token) != stops.end()) return false;
  scheduler_.append(sequence.id, token);
  return !listener.on_token || listener.on_token(sequence.id, token);
}

}  // namespace glm
