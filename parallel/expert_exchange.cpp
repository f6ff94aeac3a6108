// Everything is taken at construction. SPDX-License-Identifier: MIT
#include "parallel/expert_exchange.h"

#include <algorithm>

#include "parallel/exchange_state.h"

namespace glm {
namespace {

// kAuto: up to so many rows one all-reduce costs less than three exchanges.
constexpr int64_t kFewRows = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

OutputReturn::Sizes return_sizes(const ExpertExchange::Config& config, const ExchangeSizes& sizes) {
  const bool may_share = config.kind != ExchangeKind::kAllToAll || !sizes.all_to_all;
  return {may_share ? config.max_rows : sizes.own, sizes.received, config.hidden, config.top_k};
}

// Rows of all messages of a padded step.
int64_t padded_of(const ExchangeSizes& sizes, int64_t group) {
  return std::min(sizes.own, kPaddedRows) * group;
}

bool may_reduce(const GridShape& shape) { return shape.expert <= shape.tensor; }

ExchangeSizes sizes_of(const GridShape& shape, const ExpertExchange::Config& config) {
  ExchangeSizes sizes;
  sizes.all_to_all = shape.expert > 1 && config.kind != ExchangeKind::kReduce;
  sizes.own = ceil_div(config.max_rows, shape.tensor);
  sizes.sent = std::max(sizes.own * RowPlan::most_copies(config.placement, config.top_k),
                        padded_of(sizes, exchange_size(shape)));
  sizes.received = config.max_rows * std::max(1, shape.expert / shape.tensor);
  return sizes;
}

}  // namespace

ExpertExchange::Impl::Impl(ProcessGrid& grid_in,
                           Device& device_in,
                           Ops& ops_in,
                           const Config& config_in)
    : grid(grid_in),
      device(device_in),
      ops(ops_in),
      config(config_in),
      sizes(sizes_of(grid_in.shape(), config_in)),
      plan(config_in.placement,
           config_in.top_k,
           sizes.all_to_all ? sizes.own : 0,
           sizes.all_to_all ? sizes.sent : 0) {
  const GridShape& shape = grid.shape();
  if (config.kind == ExchangeKind::kReduce && !may_reduce(shape))
    fail(ExitCode::kUsage,
         "--expert-exchange reduce needs ranks that share their tokens: expert {} is more than "
         "tensor {}; take alltoall, or --expert {}",
         shape.expert,
         shape.tensor,
         shape.tensor);
  GLM_CHECK(config.placement.n_shares == shape.expert &&
                config.placement.n_slices == expert_slices(shape),
            "placement {} x {} on {}",
            config.placement.n_shares,
            config.placement.n_slices,
            shape.text());
  const int64_t k = config.top_k;
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  share.resize(count(shape.tensor));
  host_experts.resize(count(config.max_rows * k));
  if (!config.output_widths.empty())
    outputs_back.emplace(
        grid, device, ops, config.placement, return_sizes(config, sizes), config.output_widths);
  if (!sizes.all_to_all) return;

  const auto group = count(grid.exchange().size());
  recv_rows.resize(group);
  sent_rows.resize(group);
  send_counts.resize(group);
  recv_counts.resize(group);
  ones.assign(group, 1);
  host_weights.resize(count(sizes.own * k));
  recv_routing.resize(count(sizes.received * 2 * k));
  split_routing.resize(count(sizes.received * 2 * k));
  experts_in = device.allocate(DType::kI32, {sizes.received, k});
  weights_in = device.allocate(DType::kF32, {sizes.received, k});
  rows_out = device.allocate(DType::kF32, {sizes.sent, config.hidden});
  rows_in = device.allocate(DType::kF32, {sizes.received, config.hidden});
  allocate_lists();
  own_sum = device.allocate(DType::kF32, {sizes.own, config.hidden});
  own_shared = device.allocate(DType::kF32, {sizes.own, config.hidden});
}

void ExpertExchange::Impl::allocate_lists() {
  const int64_t padded_rows = padded_of(sizes, grid.exchange().size());
  index = device.allocate(DType::kI32, {sizes.sent});
  routing_out = device.allocate(DType::kI32, {padded_rows, 2 * int64_t{config.top_k}});
  routing_in = device.allocate(DType::kI32, {padded_rows, 2 * int64_t{config.top_k}});
  std::vector<int32_t> begins(config.placement.begins.begin(), config.placement.begins.end());
  const auto n = static_cast<int64_t>(begins.size());
  borders = device.allocate(DType::kI32, {n});
  device.copy(borders, host_tensor(begins.data(), DType::kI32, {n}));
  // With these weights combine adds up copies as they are.
  copies = device.allocate(DType::kI32, {sizes.own, plan.most_copies()});
  ones_of_copies = device.allocate(DType::kF32, {sizes.own, plan.most_copies()});
  std::vector<float> host(static_cast<size_t>(ones_of_copies.elements()), 1.0f);
  device.copy(ones_of_copies,
              host_tensor(host.data(), DType::kF32, {sizes.own, plan.most_copies()}));
  device.wait();
}

// Ranks of a tensor group have the same rows, so all of them decide alike.
bool ExpertExchange::Impl::reduces(int64_t rows) const {
  const bool few =
      config.kind == ExchangeKind::kAuto && may_reduce(grid.shape()) && rows <= kFewRows;
  return !sizes.all_to_all || few;
}

// --- ranks that share their tokens

ExpertExchange::Dispatched ExpertExchange::Impl::dispatch_shared(Tensor x,
                                                                 Tensor experts,
                                                                 Tensor weights) {
  const int64_t rows = x.rows();
  first_own = 0;
  n_own = rows;
  own_weights = weights;
  if (grid.exchange().size() > 1 && outputs_back) {
    device.copy(host_tensor(host_experts.data(), DType::kI32, {rows, config.top_k}), experts);
    device.wait();
  }
  return {x, experts, weights};
}

void ExpertExchange::Impl::combine_shared(Tensor out, Tensor partial, Tensor shared) {
  if (out.data != partial.data) device.copy(out, partial);
  if (!shared.absent()) ops.add(out, shared);
  grid.tensor().all_reduce_sum(out);
}

// --- the class

ExpertExchange::ExpertExchange(ProcessGrid& grid, Device& device, Ops& ops, const Config& config)
    : impl_(std::make_unique<Impl>(grid, device, ops, config)) {}

ExpertExchange::~ExpertExchange() = default;

void ExpertExchange::begin_step(std::span<const int64_t> rows_of_data_rank) {
  GLM_CHECK(rows_of_data_rank.size() == static_cast<size_t>(impl_->grid.shape().data),
            "rows of {} data ranks",
            rows_of_data_rank.size());
  impl_->step_rows.assign(rows_of_data_rank.begin(), rows_of_data_rank.end());
}

ExpertExchange::Dispatched ExpertExchange::dispatch(Tensor x, Tensor experts, Tensor weights) {
  dispatch_start(x, experts, weights);
  return dispatch_finish();
}

void ExpertExchange::dispatch_start(Tensor x, Tensor experts, Tensor weights) {
  const Config& config = impl_->config;
  GLM_CHECK(x.rows() <= config.max_rows && x.cols() == config.hidden &&
                experts.rows() == x.rows() && experts.cols() == config.top_k &&
                weights.rows() == x.rows() && weights.cols() == config.top_k,
            "dispatch of {}, experts {}, weights {}; at most {} rows",
            x.shape_text(),
            experts.shape_text(),
            weights.shape_text(),
            config.max_rows);
  const auto data = static_cast<size_t>(impl_->grid.coord().data);
  GLM_CHECK(impl_->step_rows.empty() || impl_->step_rows[data] == x.rows(),
            "dispatch of {} rows in a step of {}",
            x.rows(),
            impl_->step_rows[data]);
  impl_->reduce = impl_->reduces(x.rows());
  impl_->counters.dispatch_calls += 1;
  const int64_t before = impl_->sent_bytes();
  if (impl_->reduce)
    impl_->local = impl_->dispatch_shared(x, experts, weights);
  else
    impl_->start_rows(x, experts, weights);
  impl_->counters.bytes_sent += impl_->sent_bytes() - before;
}

ExpertExchange::Dispatched ExpertExchange::dispatch_finish() {
  return impl_->reduce ? impl_->local : impl_->finish_rows();
}

void ExpertExchange::combine(Tensor out, Tensor partial, Tensor shared) {
  GLM_CHECK(!impl_->outputs_back, "partial sums in reproducible mode");
  impl_->counters.combine_calls += 1;
  const int64_t before = impl_->sent_bytes();
  if (impl_->reduce)
    impl_->combine_shared(out, partial, shared);
  else
    impl_->combine_rows(out, partial, shared);
  impl_->counters.bytes_sent += impl_->sent_bytes() - before;
}

void ExpertExchange::combine_outputs(Tensor out,
                                     Tensor outputs,
                                     const ExpertGroups& groups,
                                     Tensor shared) {
  GLM_CHECK(impl_->outputs_back.has_value(), "outputs of experts in default mode");
  impl_->counters.combine_calls += 1;
  const int64_t before = impl_->sent_bytes();
  impl_->combine_outputs(out, outputs, groups, shared);
  impl_->counters.bytes_sent += impl_->sent_bytes() - before;
}

// Otherwise lists are made on the host.
bool ExpertExchange::recordable(int64_t rows) {
  if (impl_->grid.exchange().size() == 1) return true;
  if (impl_->outputs_back) return false;
  return impl_->reduces(rows) || (impl_->grid.exchange().recordable() && impl_->padded_step());
}

const ExchangeCounters& ExpertExchange::counters() const { return impl_->counters; }

int64_t ExpertExchange::max_dispatched_rows(const GridShape& shape, const Config& config) {
  return sizes_of(shape, config).received;
}

int64_t ExpertExchange::buffer_bytes(const GridShape& shape, const Config& config) {
  const ExchangeSizes sizes = sizes_of(shape, config);
  const int64_t k = config.top_k;
  const int64_t back =
      config.output_widths.empty()
          ? 0
          : OutputReturn::buffer_bytes(shape, config.placement, return_sizes(config, sizes));
  if (!sizes.all_to_all) return back;
  const int64_t rows = sizes.sent + sizes.received + 2 * sizes.own;
  const int64_t copies = sizes.own * RowPlan::most_copies(config.placement, k);
  const int64_t lists =
      2 * padded_of(sizes, exchange_size(shape)) * 2 * k + config.placement.n_shares + 1;
  return back +
         4 * (rows * config.hidden + 2 * sizes.received * k + sizes.sent + 2 * copies + lists);
}

}  // namespace glm
