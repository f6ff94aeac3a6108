// The lists of who gets which row are made on the host from the routed experts; rows move by
// gather_rows, all_to_all and scatter_add_rows. Everything is taken at construction.
// SPDX-License-Identifier: MIT
#include "parallel/expert_exchange.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <vector>

namespace glm {
namespace {

// kAuto: up to so many rows one all-reduce costs less than three exchanges.
constexpr int64_t kFewRows = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of one step in the buffers of a rank.
struct Sizes {
  bool all_to_all = false;
  int64_t own = 0;       // rows that this rank brings
  int64_t sent = 0;      // copies of them, one per destination
  int64_t received = 0;  // rows that arrive
};

bool may_reduce(const GridShape& shape) { return shape.expert <= shape.tensor; }

Sizes sizes_of(const GridShape& shape, const ExpertExchange::Config& config) {
  Sizes sizes;
  sizes.all_to_all = shape.expert > 1 && config.kind != ExchangeKind::kReduce;
  sizes.own = ceil_div(config.max_rows, shape.tensor);
  const int64_t destinations =
      std::min<int64_t>(config.placement.n_shares, config.top_k) * config.placement.n_slices;
  sizes.sent = sizes.own * destinations;
  sizes.received = config.max_rows * std::max(1, shape.expert / shape.tensor);
  return sizes;
}

}  // namespace

int ExpertPlacement::share_of(int expert) const {
  // begin() is monotone; the estimate is off by one at most.
  auto share = static_cast<int>(int64_t{expert} * n_shares / n_experts);
  while (share > 0 && expert < begin(share)) --share;
  while (expert >= begin(share + 1)) ++share;
  return share;
}

struct ExpertExchange::Impl {
  Impl(ProcessGrid& grid_in, Device& device_in, Ops& ops_in, const Config& config_in);

  Dispatched dispatch_shared(Tensor x, Tensor experts, Tensor weights);
  Dispatched dispatch_rows(Tensor x, Tensor experts, Tensor weights);
  void combine_shared(Tensor out, Tensor partial, Tensor shared);
  void combine_rows(Tensor out, Tensor partial, Tensor shared);
  void share_rows(int64_t rows);
  void read_routing(Tensor experts, Tensor weights);
  void plan_rows();
  void exchange_counts();
  void exchange_routing();
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

  // Of the step between dispatch and combine.
  bool reduce = true;
  int64_t first_own = 0;  // own rows of x: [first_own, first_own + n_own)
  int64_t n_own = 0;

  // Per rank of the exchange group, or of the tensor group (share).
  std::vector<int64_t> send_rows, recv_rows, ones, share;
  std::vector<int32_t> send_counts, recv_counts;
  std::vector<int64_t> next;       // next free place per destination
  std::vector<int64_t> last_seen;  // per share of the experts: last row that goes there

  // Host sides of small things. Routing: a row is top_k experts, then top_k weights as bits.
  std::vector<int32_t> host_experts, host_index, send_routing, recv_routing, split_routing;
  std::vector<float> host_weights;

  Tensor masked;                  // [max_rows, top_k] i32
  Tensor experts_in, weights_in;  // [received, top_k]
  Tensor rows_out, rows_in;       // [sent, hidden], [received, hidden]
  Tensor index;                   // [sent] i32: own row of each sent one
  Tensor zero_row, zero_index;    // [1, hidden], [own] i32
  Tensor own_sum, own_shared;     // [own, hidden]
};

ExpertExchange::Impl::Impl(ProcessGrid& grid_in,
                           Device& device_in,
                           Ops& ops_in,
                           const Config& config_in)
    : grid(grid_in),
      device(device_in),
      ops(ops_in),
      config(config_in),
      sizes(sizes_of(grid_in.shape(), config_in)) {
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
  share.resize(static_cast<size_t>(shape.tensor));
  const int64_t k = config.top_k;
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  if (may_reduce(shape) && shape.expert > 1)
    masked = device.allocate(DType::kI32, {config.max_rows, k});
  host_experts.resize(count(config.max_rows * k));
  if (!sizes.all_to_all) return;

  const auto group = static_cast<size_t>(grid.exchange().size());
  send_rows.resize(group);
  recv_rows.resize(group);
  next.resize(group);
  send_counts.resize(group);
  recv_counts.resize(group);
  ones.assign(group, 1);
  last_seen.resize(count(config.placement.n_shares));
  host_weights.resize(count(sizes.own * k));
  host_index.resize(count(sizes.sent));
  send_routing.resize(count(sizes.sent * 2 * k));
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
  if (grid.shape().expert == 1) return {x, experts, weights};
  const auto n = static_cast<size_t>(experts.elements());
  const Tensor host = host_tensor(host_experts.data(), DType::kI32, {x.rows(), config.top_k});
  device.copy(host, experts);
  device.wait();
  for (size_t i = 0; i < n; ++i) {
    int32_t& expert = host_experts[i];
    if (expert >= 0 && config.placement.share_of(expert) != grid.coord().expert) expert = -1;
  }
  const Tensor local = masked.slice(0, x.rows());
  device.copy(local, host);
  return {x, local, weights};
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

// Fills send_rows, host_index and send_routing: own rows by destination, ascending.
void ExpertExchange::Impl::plan_rows() {
  const ExpertPlacement& placement = config.placement;
  const int64_t k = config.top_k;
  // Calls visit(row, share) once for each share that holds an expert of the row.
  const auto each_share = [&](const auto& visit) {
    std::fill(last_seen.begin(), last_seen.end(), -1);
    for (int64_t row = 0; row < n_own; ++row) {
      for (int64_t j = 0; j < k; ++j) {
        const int32_t expert = host_experts[static_cast<size_t>(row * k + j)];
        if (expert < 0) continue;
        const int to = placement.share_of(expert);
        int64_t& seen = last_seen[static_cast<size_t>(to)];
        if (seen == row) continue;
        seen = row;
        visit(row, to);
      }
    }
  };
  std::fill(send_rows.begin(), send_rows.end(), 0);
  each_share([&](int64_t, int to) {
    for (int slice = 0; slice < placement.n_slices; ++slice)
      send_rows[static_cast<size_t>(to * placement.n_slices + slice)] += 1;
  });
  std::exclusive_scan(send_rows.begin(), send_rows.end(), next.begin(), int64_t{0});
  each_share([&](int64_t row, int to) {
    for (int slice = 0; slice < placement.n_slices; ++slice) {
      const int64_t place = next[static_cast<size_t>(to * placement.n_slices + slice)]++;
      host_index[static_cast<size_t>(place)] = static_cast<int32_t>(row);
      int32_t* routing = send_routing.data() + place * 2 * k;
      for (int64_t j = 0; j < k; ++j) {
        const auto entry = static_cast<size_t>(row * k + j);
        const int32_t expert = host_experts[entry];
        const bool goes = expert >= 0 && placement.share_of(expert) == to;
        routing[j] = goes ? expert : -1;
        routing[k + j] = std::bit_cast<int32_t>(goes ? host_weights[entry] : 0.0f);
      }
    }
  });
}

void ExpertExchange::Impl::exchange_counts() {
  const auto group = static_cast<int64_t>(send_rows.size());
  std::transform(send_rows.begin(), send_rows.end(), send_counts.begin(), [](int64_t rows) {
    return static_cast<int32_t>(rows);
  });
  grid.exchange().all_to_all(host_tensor(recv_counts.data(), DType::kI32, {group, 1}),
                             ones,
                             host_tensor(send_counts.data(), DType::kI32, {group, 1}),
                             ones);
  std::copy(recv_counts.begin(), recv_counts.end(), recv_rows.begin());
  const int64_t arriving = std::accumulate(recv_rows.begin(), recv_rows.end(), int64_t{0});
  GLM_CHECK(arriving <= sizes.received, "{} rows for a buffer of {}", arriving, sizes.received);
}

// Experts and weights of the rows that arrive, to experts_in and weights_in.
void ExpertExchange::Impl::exchange_routing() {
  const int64_t k = config.top_k;
  const int64_t sent = std::accumulate(send_rows.begin(), send_rows.end(), int64_t{0});
  const int64_t arriving = std::accumulate(recv_rows.begin(), recv_rows.end(), int64_t{0});
  grid.exchange().all_to_all(host_tensor(recv_routing.data(), DType::kI32, {arriving, 2 * k}),
                             recv_rows,
                             host_tensor(send_routing.data(), DType::kI32, {sent, 2 * k}),
                             send_rows);
  // From rows of experts and weights to all experts, then all weights.
  int32_t* split = split_routing.data();
  for (int64_t row = 0; row < arriving; ++row) {
    const int32_t* joined = recv_routing.data() + row * 2 * k;
    std::copy_n(joined, k, split + row * k);
    std::copy_n(joined + k, k, split + (arriving + row) * k);
  }
  device.copy(experts_in.slice(0, arriving), host_tensor(split, DType::kI32, {arriving, k}));
  device.copy(weights_in.slice(0, arriving),
              host_tensor(split + arriving * k, DType::kF32, {arriving, k}));
}

ExpertExchange::Dispatched ExpertExchange::Impl::dispatch_rows(Tensor x,
                                                               Tensor experts,
                                                               Tensor weights) {
  share_rows(x.rows());
  read_routing(experts, weights);
  plan_rows();
  exchange_counts();
  exchange_routing();
  const int64_t sent = std::accumulate(send_rows.begin(), send_rows.end(), int64_t{0});
  const int64_t arriving = std::accumulate(recv_rows.begin(), recv_rows.end(), int64_t{0});
  device.copy(index.slice(0, sent), host_tensor(host_index.data(), DType::kI32, {sent}));
  ops.gather_rows(rows_out.slice(0, sent), x.slice(first_own, n_own), index.slice(0, sent));
  grid.exchange().all_to_all(
      rows_in.slice(0, arriving), recv_rows, rows_out.slice(0, sent), send_rows);
  counters.rows_sent += sent - send_rows[static_cast<size_t>(grid.exchange().rank())];
  return {rows_in.slice(0, arriving), experts_in.slice(0, arriving), weights_in.slice(0, arriving)};
}

void ExpertExchange::Impl::combine_rows(Tensor out, Tensor partial, Tensor shared) {
  const bool alone = grid.shape().tensor == 1;  // own rows are all rows
  const int64_t sent = std::accumulate(send_rows.begin(), send_rows.end(), int64_t{0});
  const Tensor returned = rows_out.slice(0, sent);
  grid.exchange().all_to_all(returned, send_rows, partial, recv_rows);
  const Tensor sum = alone ? out : own_sum.slice(0, n_own);
  ops.gather_rows(sum, zero_row, zero_index.slice(0, n_own));
  int64_t first = 0;
  for (const int64_t rows : send_rows) {
    ops.scatter_add_rows(sum, returned.slice(first, rows), index.slice(first, rows));
    first += rows;
  }
  if (!shared.absent()) {
    const Tensor part = alone ? shared : own_shared.slice(0, n_own);
    if (!alone) grid.tensor().reduce_scatter_sum(part, shared, share);
    ops.add(sum, part);
  }
  if (!alone) grid.tensor().all_gather(out, sum, share);
}

// --- the class

ExpertExchange::ExpertExchange(ProcessGrid& grid, Device& device, Ops& ops, const Config& config)
    : impl_(std::make_unique<Impl>(grid, device, ops, config)) {}

ExpertExchange::~ExpertExchange() = default;

ExpertExchange::Dispatched ExpertExchange::dispatch(Tensor x, Tensor experts, Tensor weights) {
  const Config& config = impl_->config;
  GLM_CHECK(x.rows() <= config.max_rows && x.cols() == config.hidden &&
                experts.rows() == x.rows() && experts.cols() == config.top_k &&
                weights.rows() == x.rows() && weights.cols() == config.top_k,
            "dispatch of {}, experts {}, weights {}; at most {} rows",
            x.shape_text(),
            experts.shape_text(),
            weights.shape_text(),
            config.max_rows);
  // Ranks of a tensor group have the same rows, so all of them decide alike.
  const bool few =
      config.kind == ExchangeKind::kAuto && may_reduce(impl_->grid.shape()) && x.rows() <= kFewRows;
  impl_->reduce = !impl_->sizes.all_to_all || few;
  impl_->counters.dispatch_calls += 1;
  const int64_t before = impl_->sent_bytes();
  const Dispatched result = impl_->reduce ? impl_->dispatch_shared(x, experts, weights)
                                          : impl_->dispatch_rows(x, experts, weights);
  impl_->counters.bytes_sent += impl_->sent_bytes() - before;
  return result;
}

void ExpertExchange::combine(Tensor out, Tensor partial, Tensor shared) {
  impl_->counters.combine_calls += 1;
  const int64_t before = impl_->sent_bytes();
  if (impl_->reduce)
    impl_->combine_shared(out, partial, shared);
  else
    impl_->combine_rows(out, partial, shared);
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
  if (!sizes.all_to_all) return 4 * masked;
  const int64_t rows = sizes.sent + sizes.received + 1 + 2 * sizes.own;
  return 4 * (masked + rows * config.hidden + 2 * sizes.received * k + sizes.sent + sizes.own);
}

}  // namespace glm
