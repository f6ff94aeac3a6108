// SPDX-License-Identifier: MIT
#include "core/model/model.h"

#include <algorithm>

#include "core/base/fault.h"
#include "core/base/finite.h"

namespace glm {
namespace {

std::vector<int64_t> vocab_shares(const ModelConfig& config, int tensor) {
  std::vector<int64_t> widths;
  for (int t = 0; t < tensor; ++t)
    widths.push_back(even_share(config.vocab, kTileRows, t, tensor).size());
  return widths;
}

ExpertExchange::Config exchange_config(const ModelConfig& config,
                                       const Placement& placement,
                                       const ModelOptions& options) {
  ExpertExchange::Config out;
  out.placement = placement.experts;
  out.top_k = config.router.top_k;
  out.hidden = config.hidden;
  out.max_rows = options.limits.max_rows;
  out.kind = options.exchange;
  if (placement.numerics == Numerics::kReproducible) {
    const int slices = expert_slices(placement.shape);
    for (int slice = 0; slice < slices; ++slice)
      out.output_widths.push_back(even_share(config.hidden, kTileRows, slice, slices).size());
  }
  return out;
}

// The tallest stack of tensors that a step takes from the arena; an upper bound, the sum of
// everything in one layer.
int64_t arena_bytes(const ModelConfig& config,
                    const Placement& placement,
                    const ModelOptions& options) {
  const int64_t rows = options.limits.max_rows;
  const int64_t hidden = config.hidden;
  const int64_t tensor = placement.shape.tensor;
  const bool gathers = placement.numerics == Numerics::kReproducible;
  const auto share = [&](int64_t n) { return (n + tensor - 1) / tensor + 2 * kQuantBlock; };
  // x, n, output of a part; rope table.
  int64_t floats = rows * (3 * hidden + 2 * config.rope.rotary_dim);
  const HeadShare heads =
      head_share(config.n_heads, config.n_kv_heads, placement.coord.tensor, placement.shape.tensor);
  const int64_t attention =
      rows * ((heads.query.size() * 2 + heads.key_value.size() * 2) * config.head_dim +
              heads.query.size() * config.head_dim + 2 * kQuantBlock);
  const int64_t gathered = gathers ? rows * 2 * (config.attention_width() + hidden) : 0;
  const int64_t dense = rows * share(std::max(config.intermediate, config.shared_intermediate));
  const int64_t gathered_ffn =
      gathers ? rows * 2 * (std::max(config.intermediate, config.shared_intermediate) + hidden) : 0;
  int64_t moe = 0;
  if (config.is_moe()) {
    const ExpertExchange::Config exchange = exchange_config(config, placement, options);
    const int64_t r = ExpertExchange::max_dispatched_rows(placement.shape, exchange);
    const int64_t top_k = config.router.top_k;
    const int64_t slices = expert_slices(placement.shape);
    const int64_t width = (config.moe_intermediate + slices - 1) / slices + 2 * kQuantBlock;
    moe = rows * (config.router.n_experts + 2 * top_k + hidden) +   // router, shared
          r * (hidden + 3 * top_k) + config.router.n_experts + 1 +  // partial, groups
          r * top_k * (width + hidden) +                            // expert rows
          (gathers ? r * top_k * 2 * config.moe_intermediate : 0);  // whole, from slices
  }
  const int64_t head = options.limits.max_logits * (2 * hidden + share(config.vocab));
  if (placement.holds_mtp()) floats += rows * 5 * hidden;  // both inputs, apart and joined
  floats +=
      std::max({attention + gathered, dense + gathered_ffn, moe + dense + gathered_ffn, head});
  return 4 * floats + 64 * 64;  // 64: tensors of a step, each padded to 64 bytes
}

// Copies of what leaves the stage, rows or logits, while it travels: one for each step that is
// under way at once.
int64_t posted_bytes(const ModelConfig& config,
                     const Placement& placement,
                     const ModelOptions& options) {
  const GridShape& shape = placement.shape;
  if (shape.world() == 1) return 0;
  const bool last = placement.coord.pipeline == shape.pipeline - 1;
  const int64_t vocab = (config.vocab + shape.tensor - 1) / shape.tensor + kTileRows;
  const int64_t floats =
      last ? options.limits.max_logits * vocab : options.limits.max_rows * config.hidden;
  // Of each step that is under way; rows of one of them are with the stage that has taken them. A
  // draft pass sends logits as well.
  const int messages = last ? shape.pipeline * (placement.mtp ? 2 : 1) : shape.pipeline - 1;
  return 4 * floats * std::min(kMostPosted, messages);
}

int64_t hidden_elements(const ModelConfig& config,
                        const Placement& placement,
                        const StepLimits& limits) {
  if (!placement.holds_mtp()) return 0;
  return kept_hidden_steps(placement.shape) * limits.max_rows * config.hidden;
}

}  // namespace

Model::Model(const ModelParts& parts, const ModelOptions& options)
    : arena_(parts.device, arena_bytes(parts.config, parts.placement, options)),
      run_{parts.config, parts.placement, parts.grid, parts.ops, arena_, parts.where},
      weights_(parts.weights),
      device_(parts.device),
      vocab_widths_(vocab_shares(parts.config, parts.placement.shape.tensor)),
      step_rows_(static_cast<size_t>(parts.placement.shape.data)) {
  const ModelConfig& config = parts.config;
  if (config.is_moe())
    exchange_ = std::make_unique<ExpertExchange>(
        parts.grid, parts.device, parts.ops, exchange_config(config, parts.placement, options));
  const HeadShare heads = head_share(config.n_heads,
                                     config.n_kv_heads,
                                     parts.placement.coord.tensor,
                                     parts.placement.shape.tensor);
  cache_ = std::make_unique<KvCache>(parts.device,
                                     options.kv_dtype,
                                     parts.placement.cached_layers(),
                                     static_cast<int>(heads.key_value.size()),
                                     config.head_dim,
                                     options.kv_blocks);
  const std::vector<float> frequencies = config.rope.inverse_frequencies();
  const auto n = static_cast<int64_t>(frequencies.size());
  inv_freq_ = parts.device.allocate(DType::kF32, {n});
  parts.device.copy(inv_freq_,
                    host_tensor(const_cast<float*>(frequencies.data()), DType::kF32, {n}));
  parts.device.wait();
  if (parts.placement.holds_mtp())
    hidden_ = parts.device.allocate(
        DType::kF32,
        {kept_hidden_steps(parts.placement.shape), options.limits.max_rows, config.hidden});
}

Model::~Model() = default;

// What every pass needs; returns room for x.
Tensor Model::begin(const Batch& batch) {
  arena_.rewind(0);
  const int64_t rows = batch.n_rows();
  const Tensor x = take(rows, run_.config.hidden);
  rope_ = arena_.take(DType::kF32, {rows, 2, inv_freq_.rows()});
  run_.ops.rope_table(rope_, batch.rows().positions, inv_freq_);
  return x;
}

// What ranks tell each other by way of the host cannot be recorded. Ranks that talk to each other
// in a pass decide alike: they have the same rows.
bool Model::recordable(const Batch& batch) const {
  ProcessGrid& grid = run_.grid;
  return !device_.is_host() && grid.tensor().recordable() && grid.slices().recordable() &&
         (grid.shape().pipeline == 1 || grid.world().recordable()) &&
         (exchange_ == nullptr || exchange_->recordable(batch.n_rows()));
}

Tensor Model::replayed(const Batch& batch, const std::function<Tensor()>& pass) {
  for (size_t d = 0; d < step_rows_.size(); ++d) step_rows_[d] = batch.rows_of(static_cast<int>(d));
  if (exchange_ != nullptr) exchange_->begin_step(step_rows_);
  if (batch.replay_key().empty() || !recordable(batch)) return pass();
  auto& [key, result] =
      replayed_.try_emplace(batch.replay_key(), replayed_.size(), Tensor()).first->second;
  device_.replay(key, [&, &out = result] { out = pass(); });
  return result;
}

Tensor Model::forward(const Batch& batch) {
  return replayed(batch, [&] { return run_step(batch); });
}

Tensor Model::run_step(const Batch& batch) {
  const Tensor x = begin(batch);
  const int64_t rows = batch.n_rows();
  const ProcessGrid& grid = run_.grid;
  const int stage = grid.coord().pipeline;

  run_.where.part = "embedding";
  if (grid.first_stage())
    embed(x, batch);
  else if (rows > 0)
    run_.grid.world().recv(x, grid.rank_of_stage(stage - 1));
  fault_point({run_.where.phase, run_.grid.world().rank(), run_.where.step}, x);
  check_finite(x, grid.first_stage() ? "the embedding" : "what came from the stage before");

  for (int64_t i = 0; i < n_local_layers(); ++i) {
    run_.where.layer = static_cast<int>(global_layer(i));
    run_.grid.world().progress();  // the rows of the step before may still be on their way
    run_layer(i, x, batch);
  }
  run_.where.layer = -1;

  run_.where.part = "stage border";
  if (grid.last_stage()) return logits(x, batch);
  if (rows > 0) run_.grid.world().post(x, grid.rank_of_stage(stage + 1));
  return {};
}

void Model::embed(Tensor x, const Batch& batch) {
  const Range share = even_share(
      run_.config.vocab, kTileRows, run_.placement.coord.tensor, run_.placement.shape.tensor);
  run_.ops.embed(x, batch.rows().ids, weights_.matrix("embedding"), share.begin);
  run_.grid.tensor().all_reduce_sum(x);  // one rank has the row, the others zeros: exact
}

// Numerical errors name their layer.
void Model::run_layer(int64_t local_layer, Tensor x, const Batch& batch) {
  try {
    forward_layer(local_layer, x, batch);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kNumerical) throw;
    fail(error.code(), "layer {}: {}", global_layer(local_layer), error.what());
  }
  check_finite(x, "the output of layer ", global_layer(local_layer));
}

// A device's own memory is left to the check of the logits.
void Model::check_finite(Tensor x, const char* what, int64_t layer) const {
  if (!device_.is_host()) return;
  const int64_t at = first_not_finite({x.f32(), static_cast<size_t>(x.elements())});
  if (at < 0) return;
  fail(
      ExitCode::kNumerical,
      "{}{} is not finite: row {} of the step, column {} is {}; weights or an operation are broken "
      "(--ops checked finds the operation)",
      what,
      layer < 0 ? std::string() : std::to_string(layer),
      at / x.cols(),
      at % x.cols(),
      x.f32()[at]);
}

Tensor Model::logits(Tensor x, const Batch& batch) {
  run_.where.part = "head";
  const Tensor norm = weights_.vector("final_norm");
  const Tensor index = batch.logit_rows();
  const Tensor picked = take(index.rows(), run_.config.hidden);
  if (!hidden_.absent() && batch.hidden() >= 0) {
    const Tensor kept = kept_hidden(batch).slice(0, x.rows());
    run_.ops.rms_norm(kept, x, norm, run_.config.norm_eps);
    run_.ops.gather_rows(picked, kept, index);
  } else {
    run_.ops.gather_rows(picked, x, index);
    run_.ops.rms_norm(picked, picked, norm, run_.config.norm_eps);
  }
  return head(picked);
}

Tensor Model::head(Tensor picked) {
  const Weight& head = weights_.matrix(run_.config.tied ? "embedding" : "head");
  const Tensor out = take(picked.rows(), head.rows);
  run_.ops.linear(out, picked, head);
  return out;
}

// The rows of the step that batch.hidden() names.
Tensor Model::kept_hidden(const Batch& batch) {
  if (batch.hidden() >= hidden_.rows())
    fail(ExitCode::kCommunication,
         "a step plan keeps hidden states at {} of {} places",
         batch.hidden(),
         hidden_.rows());
  const int64_t rows = hidden_.dim(1);
  return hidden_.slice(batch.hidden(), 1).reshaped({rows, run_.config.hidden});
}

Tensor Model::draft(const Batch& batch) {
  if (!run_.grid.last_stage()) return {};
  GLM_CHECK(!hidden_.absent() && batch.hidden() >= 0, "a draft pass without an MTP layer");
  return replayed(batch, [&] { return run_draft(batch); });
}

Tensor Model::run_draft(const Batch& batch) {
  const Tensor x = begin(batch);
  run_.where.part = "MTP layer";
  run_.where.layer = static_cast<int>(run_.config.n_layers);
  const Tensor hidden = take(x.rows(), x.cols());
  run_.ops.gather_rows(hidden, kept_hidden(batch), batch.hidden_rows());
  embed(x, batch);
  forward_mtp(x, hidden, batch);
  check_finite(x, "the output of the MTP layer");
  run_.where.layer = -1;
  run_.where.part = "head";
  const Tensor picked = take(batch.n_logits(), x.cols());
  run_.ops.gather_rows(picked, x, batch.logit_rows());
  return head(picked);
}

void Model::forward_mtp(Tensor, Tensor, const Batch&) {
  fail(ExitCode::kRuntime, "{} models have no MTP layer", family_name(run_.config.family));
}

std::string Model::layer_prefix(int64_t local_layer) const {
  return fmt::format("layers.{}.", global_layer(local_layer));
}

const ExchangeCounters& Model::exchange_counters() const {
  static const ExchangeCounters kNone;
  return exchange_ == nullptr ? kNone : exchange_->counters();
}

std::unique_ptr<Model> make_model(const ModelParts& parts, const ModelOptions& options) {
  switch (parts.config.family) {
    case Family::kGlm4Moe:
    case Family::kQwen3Moe:
      return make_glm4_moe(parts, options);
    case Family::kGlm4:
    case Family::kGlm:
    case Family::kChatGlm:
      return make_glm4(parts, options);
    case Family::kLlama:
    case Family::kQwen3:
      return make_llama(parts, options);
  }
  fail(ExitCode::kRuntime, "family {}", family_name(parts.config.family));
}

int64_t model_scratch_bytes(const ModelConfig& config,
                            const Placement& placement,
                            const ModelOptions& options) {
  int64_t bytes = arena_bytes(config, placement, options) + Batch::bytes(options.limits) +
                  posted_bytes(config, placement, options) +
                  4 * hidden_elements(config, placement, options.limits);
  if (config.is_moe())
    bytes +=
        ExpertExchange::buffer_bytes(placement.shape, exchange_config(config, placement, options));
  return bytes;
}

OpsLimits ops_limits(const ModelConfig& config, const GridShape& shape, const StepLimits& limits) {
  OpsLimits out;
  const int64_t spread = std::max(1, shape.expert / std::max(1, shape.tensor));
  out.max_rows = limits.max_rows * spread * std::max(1, config.router.top_k);
  out.max_cols = std::max({config.hidden * (config.announces_mtp ? 2 : 1),
                           config.attention_width(),
                           config.intermediate,
                           config.moe_intermediate,
                           config.shared_intermediate});
  out.max_context = limits.max_context;
  out.max_heads = config.n_heads;
  out.max_head_dim = config.head_dim;
  return out;
}

}  // namespace glm
