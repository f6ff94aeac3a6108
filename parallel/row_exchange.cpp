// Dispatch and combine of ranks that bring rows of their own. With few rows all of them go to all
// ranks, and the device makes the lists; with many, lists of who gets which row are made on the
// host from the routed experts. Rows move by gather_rows and all_to_all and are added up by
// combine. SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>

#include "parallel/exchange_state.h"

namespace glm {

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

// Rows for the others to rows_out, those that stay here to where they would arrive.
void ExpertExchange::Impl::gather(Tensor own) {
  const auto self = static_cast<size_t>(grid.exchange().rank());
  const int64_t before = total_rows(std::span(sent_rows).first(self));
  const int64_t after = before + sent_rows[self];
  const int64_t arrived = total_rows(std::span(recv_rows).first(self));
  const auto part = [&](Tensor to, int64_t begin, int64_t end) {
    if (end > begin)
      ops.gather_rows(to.slice(0, end - begin), own, index.slice(begin, end - begin));
  };
  part(rows_out, 0, before);
  part(rows_in.slice(arrived, sent_rows[self]), before, after);
  part(rows_out.slice(after, n_sent - after), after, n_sent);
}

// What is enqueued does not depend on what the router chose.
void ExpertExchange::Impl::start_padded(Tensor x, Tensor experts, Tensor weights) {
  const int64_t n = arriving();
  n_sent = static_cast<int64_t>(recv_rows.size()) * n_own;
  std::fill(sent_rows.begin(), sent_rows.end(), n_own);
  RowCopies lists{index.slice(0, n_sent), routing_out.slice(0, n_sent), copies.slice(0, n_own)};
  ops.copy_rows(lists,
                experts.slice(first_own, n_own),
                weights.slice(first_own, n_own),
                borders,
                config.placement.n_slices);
  gather(x.slice(first_own, n_own));
  const std::array<AllToAllPart, 2> parts = {
      AllToAllPart{routing_in.slice(0, n), recv_rows, lists.routing, sent_rows},
      AllToAllPart{rows_in.slice(0, n), recv_rows, rows_out.slice(0, n_sent), sent_rows, true}};
  grid.exchange().all_to_all_start(parts);
  counters.rows_sent += n_sent - n_own;
}

void ExpertExchange::Impl::start_rows(Tensor x, Tensor experts, Tensor weights) {
  share_rows(x.rows());
  padded = padded_step();
  own_weights = weights.slice(first_own, n_own);
  if (!padded || outputs_back) read_routing(experts, weights);
  if (padded) return start_padded(x, experts, weights);
  plan.make(host_experts, host_weights, n_own);
  sent_rows = plan.sent();
  n_sent = plan.n_sent();
  exchange_counts();
  const int64_t k = config.top_k, sent = n_sent, n = arriving();
  GLM_CHECK(n <= sizes.received, "{} rows for a buffer of {}", n, sizes.received);
  device.copy(index.slice(0, sent), host_tensor(plan.index().data(), DType::kI32, {sent}));
  device.copy(copies.slice(0, n_own),
              host_tensor(plan.copies().data(), DType::kI32, {n_own, plan.most_copies()}));
  gather(x.slice(first_own, n_own));
  const std::array<AllToAllPart, 2> parts = {
      AllToAllPart{host_tensor(recv_routing.data(), DType::kI32, {n, 2 * k}),
                   recv_rows,
                   host_tensor(plan.routing().data(), DType::kI32, {sent, 2 * k}),
                   plan.sent()},
      AllToAllPart{rows_in.slice(0, n), recv_rows, rows_out.slice(0, sent), plan.sent(), true}};
  grid.exchange().all_to_all_start(parts);
  counters.rows_sent += n_sent - sent_rows[static_cast<size_t>(grid.exchange().rank())];
}

ExpertExchange::Dispatched ExpertExchange::Impl::finish_rows() {
  grid.exchange().all_to_all_wait();
  const int64_t n = arriving();
  if (padded)
    ops.split_routing(experts_in.slice(0, n), weights_in.slice(0, n), routing_in.slice(0, n));
  else
    split_arrived();
  return {rows_in.slice(0, n), experts_in.slice(0, n), weights_in.slice(0, n)};
}

void ExpertExchange::Impl::combine_rows(Tensor out, Tensor partial, Tensor shared) {
  const bool alone = grid.shape().tensor == 1;  // own rows are all rows
  const Tensor returned = rows_out.slice(0, n_sent);
  grid.exchange().all_to_all(returned, sent_rows, partial, recv_rows);
  const Tensor sum = alone ? out : own_sum.slice(0, n_own);
  ExpertGroups parts;
  parts.capacity = returned.rows();
  parts.order = copies.slice(0, n_own);
  parts.weights = ones_of_copies.slice(0, n_own);
  ops.combine(sum, returned, parts);
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

}  // namespace glm
