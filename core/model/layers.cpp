// SPDX-License-Identifier: MIT
#include "core/model/layers.h"

#include <algorithm>
#include <numeric>

#include "core/base/fault.h"

namespace glm {
namespace {

std::vector<int64_t> attention_widths(const ModelConfig& config, int tensor) {
  std::vector<int64_t> widths;
  for (int t = 0; t < tensor; ++t)
    widths.push_back(head_share(config.n_heads, config.n_kv_heads, t, tensor).query.size() *
                     config.head_dim);
  return widths;
}

HeadLayout local_heads(const ModelConfig& config, const Placement& placement) {
  const HeadShare share =
      head_share(config.n_heads, config.n_kv_heads, placement.coord.tensor, placement.shape.tensor);
  HeadLayout heads;
  heads.n_heads = static_cast<int>(share.query.size());
  heads.n_kv_heads = static_cast<int>(share.key_value.size());
  heads.head_dim = config.head_dim;
  heads.ratio = config.n_heads / config.n_kv_heads;
  heads.first_head = static_cast<int>(share.query.begin - share.key_value.begin * heads.ratio);
  return heads;
}

Tensor take(Runtime& run, int64_t rows, int64_t cols) {
  return run.arena.take(DType::kF32, {rows, cols});
}

// Columns [T, widths[rank]] of every rank of a group, side by side: [T, sum of widths].
void gather_columns(
    Runtime& run, Communicator& group, Tensor out, Tensor in, const std::vector<int64_t>& widths) {
  ArenaScope scope(run.arena);
  std::vector<int64_t> elements;
  for (const int64_t width : widths) elements.push_back(in.rows() * width);
  const Tensor slices = run.arena.take(DType::kF32, {out.elements()});
  group.all_gather(slices, in.reshaped({in.elements()}), elements);
  run.ops.concat_columns(out, slices, widths);
}

}  // namespace

std::vector<int64_t> ffn_widths(int64_t intermediate, int tensor) {
  std::vector<int64_t> widths;
  for (int t = 0; t < tensor; ++t)
    widths.push_back(even_share(intermediate, kQuantBlock, t, tensor).size());
  return widths;
}

// --- ReducedLinear
// ---------------------------------------------------------------------------------------------------

ReducedLinear::ReducedLinear(Runtime& run,
                             const Weights& weights,
                             const std::string& name,
                             std::vector<int64_t> widths)
    : run_(run),
      weight_(weights.matrix(name)),
      slab_(weights.slab(name)),
      widths_(std::move(widths)) {}

// A border of ranks may fall inside a block of 32 columns: both ranks hold the block and see zeros
// for the other's part.
Tensor ReducedLinear::padded(Tensor in) {
  if (slab_.cols == slab_.active_cols) return in;
  const Tensor wide = take(run_, in.rows(), slab_.cols.size());
  run_.ops.pad_columns(wide, in, slab_.active_cols.begin - slab_.cols.begin);
  return wide;
}

void ReducedLinear::forward_partial(Tensor out, Tensor in) {
  ArenaScope scope(run_.arena);
  run_.ops.linear(out, padded(in), weight_);
}

void ReducedLinear::forward(Tensor out, Tensor in) {
  if (run_.placement.numerics == Numerics::kDefault) {
    forward_partial(out, in);
    run_.grid.tensor().all_reduce_sum(out);
    return;
  }
  ArenaScope scope(run_.arena);
  const int tensor = run_.placement.shape.tensor;
  const Tensor whole =
      take(run_, in.rows(), std::accumulate(widths_.begin(), widths_.end(), int64_t{0}));
  gather_columns(run_, run_.grid.tensor(), whole, in, widths_);
  std::vector<int64_t> out_widths;
  for (int t = 0; t < tensor; ++t)
    out_widths.push_back(even_share(run_.config.hidden, kTileRows, t, tensor).size());
  const Tensor part = take(run_, in.rows(), weight_.rows);
  run_.ops.linear(part, whole, weight_);
  gather_columns(run_, run_.grid.tensor(), out, part, out_widths);
}

// --- Attention
// -------------------------------------------------------------------------------------------------------

Attention::Attention(Runtime& run, const Weights& weights, const std::string& prefix)
    : run_(run),
      heads_(local_heads(run.config, run.placement)),
      qkv_(weights.matrix(prefix + "attention.qkv")),
      qkv_bias_(weights.vector(prefix + "attention.qkv_bias")),
      q_norm_(weights.vector(prefix + "attention.q_norm")),
      k_norm_(weights.vector(prefix + "attention.k_norm")),
      out_(run,
           weights,
           prefix + "attention.out",
           attention_widths(run.config, run.placement.shape.tensor)) {}

void Attention::forward(
    Tensor out, Tensor n, const KvLayer& cache, const BatchRows& rows, Tensor rope) {
  run_.where.part = "attention";
  ArenaScope scope(run_.arena);
  const Tensor qkv = take(run_, n.rows(), heads_.row_width());
  run_.ops.linear(qkv, n, qkv_, qkv_bias_);
  run_.ops.place_heads(cache,
                       qkv,
                       rows.slots,
                       heads_,
                       {q_norm_, k_norm_, run_.config.norm_eps, rope, run_.config.rope.pairing});
  const Tensor a = take(run_, n.rows(), int64_t{heads_.n_heads} * heads_.head_dim);
  run_.ops.attention(a, qkv, cache, rows, heads_);
  out_.forward(out, a);
}

// --- Mlp
// -------------------------------------------------------------------------------------------------------------

Mlp::Mlp(Runtime& run, const Weights& weights, const std::string& prefix, int64_t intermediate)
    : run_(run),
      gate_up_(weights.matrix(prefix + "gate_up")),
      down_(run, weights, prefix + "down", ffn_widths(intermediate, run.placement.shape.tensor)) {}

Tensor Mlp::hidden(Tensor n) {
  run_.where.part = "mlp";
  const Tensor h = take(run_, n.rows(), gate_up_.rows / 2);
  run_.ops.gate_up(h, n, gate_up_);
  return h;
}

void Mlp::forward(Tensor out, Tensor n) {
  ArenaScope scope(run_.arena);
  down_.forward(out, hidden(n));
}

// --- Moe
// -------------------------------------------------------------------------------------------------------------

Moe::Moe(Runtime& run, const Weights& weights, const std::string& prefix, ExpertExchange& exchange)
    : run_(run),
      exchange_(exchange),
      router_(weights.matrix(prefix + "router")),
      router_bias_(weights.vector(prefix + "router_bias")),
      experts_(weights, prefix) {
  GLM_CHECK(run.placement.experts.n_experts == run.config.router.n_experts,
            "{} experts have a place, the model has {}",
            run.placement.experts.n_experts,
            run.config.router.n_experts);
  if (run.config.shared_intermediate > 0)
    shared_ =
        std::make_unique<Mlp>(run, weights, prefix + "shared.", run.config.shared_intermediate);
}

void Moe::forward(Tensor out, Tensor n) {
  ArenaScope scope(run_.arena);
  const int64_t rows = n.rows();
  const int64_t top_k = run_.config.router.top_k;
  run_.where.part = "router";
  const Tensor logits = take(run_, rows, run_.config.router.n_experts);
  const Tensor experts = run_.arena.take(DType::kI32, {rows, top_k});
  const Tensor weights = take(run_, rows, top_k);
  run_.ops.linear(logits, n, router_);
  run_.ops.route(experts, weights, logits, router_bias_, run_.config.router);

  const int rank = run_.grid.world().rank();
  run_.where.part = "dispatch";
  fault_point({"dispatch", rank, run_.where.step, run_.where.layer}, n);
  exchange_.dispatch_start(n, experts, weights);
  Tensor h, shared;  // computed while rows travel
  if (shared_ != nullptr) {
    h = shared_->hidden(n);
    shared = take(run_, rows, n.cols());
    if (!unsummed()) shared_->down().forward_partial(shared, h);
  }
  run_.where.part = "dispatch";
  const ExpertExchange::Dispatched mine = exchange_.dispatch_finish();
  run_.where.part = "experts";
  if (shared_ != nullptr && unsummed()) shared_->down().forward(shared, h);
  const Outputs outputs = local_experts(mine);
  run_.where.part = "combine";
  fault_point({"combine", rank, run_.where.step, run_.where.layer}, outputs.rows);
  if (unsummed()) {
    exchange_.combine_outputs(out, outputs.rows, outputs.groups, shared);
    return;
  }
  if (mine.x.data == n.data) {  // nothing has travelled
    run_.ops.combine(out, outputs.rows, outputs.groups, shared);
    exchange_.combine(out, out, {});
    return;
  }
  const Tensor partial = take(run_, mine.x.rows(), n.cols());
  run_.ops.combine(partial, outputs.rows, outputs.groups);
  exchange_.combine(out, partial, shared);
}

// Taken from the caller's arena scope.
Moe::Outputs Moe::local_experts(const ExpertExchange::Dispatched& in) {
  const int64_t rows = in.x.rows();
  const int64_t top_k = in.experts.cols();
  ExpertGroups groups;
  groups.n_experts = static_cast<int>(experts_.gate_up().n_matrices);
  groups.capacity = rows * top_k;
  groups.offsets = run_.arena.take(DType::kI32, {int64_t{groups.n_experts} + 1});
  groups.rows = run_.arena.take(DType::kI32, {groups.capacity});
  groups.order = run_.arena.take(DType::kI32, {rows, top_k});
  groups.weights = take(run_, rows, top_k);
  const int first_expert = run_.placement.experts.begin(run_.placement.coord.expert);
  run_.ops.group_rows(groups, in.experts, in.weights, first_expert);
  if (StepLog* log = run_.where.log; log != nullptr && run_.arena.device().is_host())
    log->add_experts(
        run_.where.layer,
        {groups.offsets.as<int32_t>(), static_cast<size_t>(groups.offsets.elements())});
  Tensor h = take(run_, groups.capacity, experts_.gate_up().rows / 2);
  run_.ops.expert_gate_up(h, in.x, groups, experts_.gate_up());
  if (unsummed()) h = gathered(groups, h);
  const Tensor outputs = take(run_, groups.capacity, experts_.down().rows);
  run_.ops.expert_down(outputs, h, groups, experts_.down());
  return {groups, outputs};
}

// The slices of the experts' hidden rows side by side: the ranks that slice the same experts have
// the same assignments.
Tensor Moe::gathered(const ExpertGroups& groups, Tensor h) {
  Communicator& slices = run_.grid.slices();
  if (slices.size() == 1) return h;
  int32_t n = 0;
  run_.arena.device().copy(host_tensor(&n, DType::kI32, {1}),
                           groups.offsets.slice(groups.n_experts, 1));
  run_.arena.device().wait();
  const Tensor whole = take(run_, groups.capacity, run_.config.moe_intermediate);
  gather_columns(run_,
                 slices,
                 whole.slice(0, n),
                 h.slice(0, n),
                 ffn_widths(run_.config.moe_intermediate, slices.size()));
  return whole;
}

}  // namespace glm
