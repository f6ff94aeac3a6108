// The lists of who gets which row are made on the host from the routed experts; rows move by
// gather_rows, all_to_all and scatter_add_rows. Everything is taken at construction.
// SPDX-License-Identifier: MIT
#include "parallel/expert_exchange.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <vector>

#include "parallel/output_return.h"

namespace glm {
namespace {

// kAuto: up to so many rows one all-reduce costs less than three exchanges.
constexpr int64_t kFewRows = 64;
// Up to so many rows of a rank, all of them go to everybody: one exchange instead of three.
constexpr int64_t kPaddedRows = 8;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of one step in the buffers of a rank.
struct Sizes {
  bool all_to_all = false;
  int64_t own = 0;       // rows that this rank brings
  int64_t sent = 0;      // copies of them, one per destination
  int64_t received = 0;  // rows that arrive
};

OutputReturn::Sizes return_sizes(const ExpertExchange::Config& config, const Sizes& sizes) {
  const bool may_share = config.kind != ExchangeKind::kAllToAll || !sizes.all_to_all;
  return {may_share ? config.max_rows : sizes.own, sizes.received, config.hidden, config.top_k};
}

bool may_reduce(const GridShape& shape) { return shape.expert <= shape.tensor; }

Sizes sizes_of(const GridShape& shape, const ExpertExchange::Config& config) {
  Sizes sizes;
  sizes.all_to_all = shape.expert > 1 && config.kind != ExchangeKind::kReduce;
  sizes.own = ceil_div(config.max_rows, shape.tensor);
  const int64_t destinations =
      std::min<int64_t>(config.placement.n_shares, config.top_k) * config.placement.n_slices;
  sizes.sent = std::max(sizes.own * destinations,
                        std::min(sizes.own, kPaddedRows) * std::max(shape.tensor, shape.expert));
  sizes.received = config.max_rows * std::max(1, shape.expert / shape.tensor);
  return sizes;
}

}  // namespace

struct ExpertExchange::Impl {
  Impl(ProcessGrid& grid_in, Device& device_in, Ops& ops_in, const Config& config_in);
  // Left by an error between start and finish: peers must not read what goes away now.
  ~Impl() { grid.exchange().all_to_all_cancel(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Dispatched dispatch_shared(Tensor x, Tensor experts, Tensor weights);
  void start_rows(Tensor x, Tensor experts, Tensor weights);
  Dispatched finish_rows();
  void combine_shared(Tensor out, Tensor partial, Tensor shared);
  void combine_rows(Tensor out, Tensor partial, Tensor shared);
  void combine_outputs(Tensor out, Tensor outputs, const ExpertGroups& groups, Tensor shared);
  void share_rows(int64_t rows);
  bool padded_step();
  void read_routing(Tensor experts, Tensor weights);
  void exchange_counts();
  void split_arrived();
  int64_t arriving() const {
    return std::accumulate(recv_rows.begin(), recv_rows.end(), int64_t{0});
  }
  // Bytes that this rank has sent in the groups of the exchange.
  int64_t sent_bytes() {
    return grid.exchange().counters().sent_bytes + grid.tensor().counters().sent_bytes;
  }

  ProcessGrid& grid;
  Device& device;
  Ops& ops;
  Config config;
  Sizes sizes;
  ExchangeCounters counters;

  // Of the step.
  std::vector<int64_t> step_rows;  // per data rank; empty: not known

  // Of the time between dispatch and combine.
  bool reduce = true;
  int64_t first_own = 0;  // own rows of x: [first_own, first_own + n_own)
  int64_t n_own = 0;
  Dispatched local;    // reduce: what dispatch_finish() gives
  Tensor own_weights;  // reproducible: [n_own, top_k]

  RowPlan plan;
  // Per rank of the exchange group, or of the tensor group (share).
  std::vector<int64_t> recv_rows, ones, share;
  std::vector<int32_t> send_counts, recv_counts;

  // Host sides of small things. Routing: a row is top_k experts, then top_k weights as bits.
  std::vector<int32_t> host_experts, host_masked, recv_routing, split_routing;
  std::vector<float> host_weights;

  Tensor masked;                  // [max_rows, top_k] i32
  Tensor experts_in, weights_in;  // [received, top_k]
  Tensor rows_out, rows_in;       // [sent, hidden], [received, hidden]
  Tensor index;                   // [sent] i32: own row of each sent one
  Tensor zero_row, zero_index;    // [1, hidden], [own] i32
  Tensor own_sum, own_shared;     // [own, hidden]
  std::optional<OutputReturn> outputs_back;
};

ExpertExchange::Impl::Impl(ProcessGrid& grid_in,
                           Device& device_in,
                           Ops& ops_in,
                           const Config& config_in)
    : grid(grid_in),
      device(device_in),
      ops(ops_in),
      config(config_in),
      sizes(sizes_of(grid_in.shape(), config_in)),
      plan(config_in.placement, config_in.top_k, sizes.all_to_all ? sizes.sent : 0) {
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
  if (may_reduce(shape) && shape.expert > 1)
    masked = device.allocate(DType::kI32, {config.max_rows, k});
  host_experts.resize(count(config.max_rows * k));
  host_masked.resize(count(config.max_rows * k));
  if (!config.output_widths.empty())
    outputs_back.emplace(
        grid, device, ops, config.placement, return_sizes(config, sizes), config.output_widths);
  if (!sizes.all_to_all) return;

  const auto group = count(grid.exchange().size());
  recv_rows.resize(group);
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
  index = device.allocate(DType::kI32, {sizes.sent});
  zero_row = device.allocate(DType::kF32, {1, config.hidden});
  zero_index = device.allocate(DType::kI32, {sizes.own});
  own_sum = device.allocate(DType::kF32, {sizes.own, config.hidden});
  own_shared = device.allocate(DType::kF32, {sizes.own, config.hidden});
}

// --- ranks that share their tokens

ExpertExchange::Dispatched ExpertExchange::Impl::dispatch_shared(Tensor x,
                                                                 Tensor experts,
                                                                 Tensor weights) {
  const int64_t rows = x.rows();
  first_own = 0;
  n_own = rows;
  own_weights = weights;
  if (grid.exchange().size() == 1 || (grid.shape().expert == 1 && !outputs_back))
    return {x, experts, weights};
  device.copy(host_tensor(host_experts.data(), DType::kI32, {rows, config.top_k}), experts);
  device.wait();
  if (grid.shape().expert == 1) return {x, experts, weights};
  const auto n = static_cast<size_t>(experts.elements());
  for (size_t i = 0; i < n; ++i) {
    const int32_t expert = host_experts[i];
    const bool mine = expert >= 0 && config.placement.share_of(expert) == grid.coord().expert;
    host_masked[i] = mine ? expert : -1;
  }
  const Tensor chosen = masked.slice(0, rows);
  device.copy(chosen, host_tensor(host_masked.data(), DType::kI32, {rows, config.top_k}));
  return {x, chosen, weights};
}

void ExpertExchange::Impl::combine_shared(Tensor out, Tensor partial, Tensor shared) {
  if (out.data != partial.data) device.copy(out, partial);
  if (!shared.absent()) ops.add(out, shared);
  grid.tensor().all_reduce_sum(out);
}

// --- ranks that bring rows of their own

// Tensor ranks hold the same rows and bring an even part of them each.
void ExpertExchange::Impl::share_rows(int64_t rows) {
  const int64_t tensor = grid.shape().tensor;
  for (int64_t t = 0; t < tensor; ++t)
    share[static_cast<size_t>(t)] = rows * (t + 1) / tensor - rows * t / tensor;
  first_own = rows * grid.coord().tensor / tensor;
  n_own = share[static_cast<size_t>(grid.coord().tensor)];
}

void ExpertExchange::Impl::read_routing(Tensor experts, Tensor weights) {
  device.copy(host_tensor(host_experts.data(), DType::kI32, {n_own, config.top_k}),
              experts.slice(first_own, n_own));
  device.copy(host_tensor(host_weights.data(), DType::kF32, {n_own, config.top_k}),
              weights.slice(first_own, n_own));
  device.wait();
}

// Whether messages have the size that the step's rows give them. All ranks of the group decide
// alike. Fills recv_rows if so.
bool ExpertExchange::Impl::padded_step() {
  if (step_rows.empty()) return false;
  const int64_t tensor = grid.shape().tensor;
  const auto group = static_cast<int64_t>(recv_rows.size());
  const int64_t first = grid.coord().data * tensor / group * group / tensor;
  for (int64_t p = 0; p < group; ++p) {
    const int64_t rows = step_rows[static_cast<size_t>(first + p / tensor)];
    const int64_t t = p % tensor;
    const int64_t own = rows * (t + 1) / tensor - rows * t / tensor;
    if (own > kPaddedRows) return false;
    recv_rows[static_cast<size_t>(p)] = own;
  }
  return true;
}

void ExpertExchange::Impl::exchange_counts() {
  const auto group = static_cast<int64_t>(recv_rows.size());
  std::transform(plan.sent().begin(), plan.sent().end(), send_counts.begin(), [](int64_t rows) {
    return static_cast<int32_t>(rows);
  });
  grid.exchange().all_to_all(host_tensor(recv_counts.data(), DType::kI32, {group, 1}),
                             ones,
                             host_tensor(send_counts.data(), DType::kI32, {group, 1}),
                             ones);
  std::copy(recv_counts.begin(), recv_counts.end(), recv_rows.begin());
}

// Experts and weights of the rows that arrived, to experts_in and weights_in.
void ExpertExchange::Impl::split_arrived() {
  const int64_t k = config.top_k;
  const int64_t n = arriving();
  // From rows of experts and weights to all experts, then all weights.
  int32_t* split = split_routing.data();
  for (int64_t row = 0; row < n; ++row) {
    const int32_t* joined = recv_routing.data() + row * 2 * k;
    std::copy_n(joined, k, split + row * k);
    std::copy_n(joined + k, k, split + (n + row) * k);
  }
  device.copy(experts_in.slice(0, n), host_tensor(split, DType::kI32, {n, k}));
  device.copy(weights_in.slice(0, n), host_tensor(split + n * k, DType::kF32, {n, k}));
}

void ExpertExchange::Impl::start_rows(Tensor x, Tensor experts, Tensor weights) {
  share_rows(x.rows());
  read_routing(experts, weights);
  own_weights = weights.slice(first_own, n_own);
  const bool padded = padded_step();
  plan.make(host_experts, host_weights, n_own, padded);
  if (!padded) exchange_counts();
  const int64_t k = config.top_k, sent = plan.n_sent(), n = arriving();
  GLM_CHECK(n <= sizes.received, "{} rows for a buffer of {}", n, sizes.received);
  device.copy(index.slice(0, sent), host_tensor(plan.index().data(), DType::kI32, {sent}));
  ops.gather_rows(rows_out.slice(0, sent), x.slice(first_own, n_own), index.slice(0, sent));
  const std::array<AllToAllPart, 2> parts = {
      AllToAllPart{host_tensor(recv_routing.data(), DType::kI32, {n, 2 * k}),
                   recv_rows,
                   host_tensor(plan.routing().data(), DType::kI32, {sent, 2 * k}),
                   plan.sent()},
      AllToAllPart{rows_in.slice(0, n), recv_rows, rows_out.slice(0, sent), plan.sent()}};
  grid.exchange().all_to_all_start(parts);
  const auto self = static_cast<size_t>(grid.exchange().rank());
  for (size_t p = 0; p < plan.needed().size(); ++p)
    if (p != self) counters.rows_sent += plan.needed()[p];
}

ExpertExchange::Dispatched ExpertExchange::Impl::finish_rows() {
  grid.exchange().all_to_all_wait();
  split_arrived();
  const int64_t n = arriving();
  return {rows_in.slice(0, n), experts_in.slice(0, n), weights_in.slice(0, n)};
}

void ExpertExchange::Impl::combine_rows(Tensor out, Tensor partial, Tensor shared) {
  const bool alone = grid.shape().tensor == 1;  // own rows are all rows
  const Tensor returned = rows_out.slice(0, plan.n_sent());
  grid.exchange().all_to_all(returned, plan.sent(), partial, recv_rows);
  const Tensor sum = alone ? out : own_sum.slice(0, n_own);
  ops.gather_rows(sum, zero_row, zero_index.slice(0, n_own));
  int64_t first = 0;
  for (size_t p = 0; p < plan.sent().size(); ++p) {
    const int64_t rows = plan.needed()[p];
    ops.scatter_add_rows(sum, returned.slice(first, rows), index.slice(first, rows));
    first += plan.sent()[p];
  }
  if (!shared.absent()) {
    const Tensor part = alone ? shared : own_shared.slice(0, n_own);
    if (!alone) grid.tensor().reduce_scatter_sum(part, shared, share);
    ops.add(sum, part);
  }
  if (!alone) grid.tensor().all_gather(out, sum, share);
}

void ExpertExchange::Impl::combine_outputs(Tensor out,
                                           Tensor outputs,
                                           const ExpertGroups& groups,
                                           Tensor shared) {
  const bool all_rows = reduce || grid.shape().tensor == 1;
  const Tensor sum = all_rows ? out : own_sum.slice(0, n_own);
  const std::span<const int64_t> from =
      reduce ? std::span<const int64_t>() : std::span<const int64_t>(recv_rows);
  outputs_back->run(sum, {outputs, groups, from}, host_experts, own_weights);
  if (!shared.absent()) ops.add(sum, shared.slice(first_own, n_own));
  if (!all_rows) grid.tensor().all_gather(out, sum, share);
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
  // Ranks of a tensor group have the same rows, so all of them decide alike.
  const bool few =
      config.kind == ExchangeKind::kAuto && may_reduce(impl_->grid.shape()) && x.rows() <= kFewRows;
  impl_->reduce = !impl_->sizes.all_to_all || few;
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

const ExchangeCounters& ExpertExchange::counters() const { return impl_->counters; }

int64_t ExpertExchange::max_dispatched_rows(const GridShape& shape, const Config& config) {
  return sizes_of(shape, config).received;
}

int64_t ExpertExchange::buffer_bytes(const GridShape& shape, const Config& config) {
  const Sizes sizes = sizes_of(shape, config);
  const int64_t k = config.top_k;
  const int64_t masked = may_reduce(shape) && shape.expert > 1 ? config.max_rows * k : 0;
  const int64_t back =
      config.output_widths.empty()
          ? 0
          : OutputReturn::buffer_bytes(shape, config.placement, return_sizes(config, sizes));
  if (!sizes.all_to_all) return 4 * masked + back;
  const int64_t rows = sizes.sent + sizes.received + 1 + 2 * sizes.own;
  return back +
         4 * (masked + rows * config.hidden + 2 * sizes.received * k + sizes.sent + sizes.own);
}

}  // namespace glm
