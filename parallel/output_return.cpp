// SPDX-License-Identifier: MIT
#include "parallel/output_return.h"

#include <algorithm>

namespace glm {
namespace {

int group_size(const GridShape& shape) { return std::max(shape.tensor, shape.expert); }

// Outputs of one row that a rank computes at most.
int64_t outputs_per_row(const ExpertPlacement& placement, int top_k) {
  return std::min(top_k, placement.largest());
}

Tensor shaped(Tensor memory, int64_t rows, int64_t cols) {
  return memory.slice(0, rows * cols).reshaped({rows, cols});
}

}  // namespace

OutputReturn::OutputReturn(ProcessGrid& grid,
                           Device& device,
                           Ops& ops,
                           const ExpertPlacement& placement,
                           const Sizes& sizes,
                           const std::vector<int64_t>& widths)
    : grid_(grid),
      device_(device),
      ops_(ops),
      placement_(placement),
      sizes_(sizes),
      widths_(widths) {
  GLM_CHECK(
      static_cast<int>(widths.size()) == placement.n_slices && total_rows(widths) == sizes.hidden,
      "outputs of {} columns in {} slices",
      total_rows(widths),
      widths.size());
  if (grid.exchange().size() == 1) return;
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  const int64_t computed = sizes.received * outputs_per_row(placement, sizes.top_k);
  const int64_t needed = sizes.own * sizes.top_k;
  per_share_.resize(count(placement.n_shares));
  next_.resize(count(placement.n_shares));
  for (auto* list : {&send_, &recv_, &from_}) list->resize(count(grid.exchange().size()));
  host_order_.resize(count(sizes.received * sizes.top_k));
  host_index_.resize(count(computed));
  host_places_.resize(count(needed));
  index_ = device.allocate(DType::kI32, {computed});
  order_ = device.allocate(DType::kI32, {sizes.own, sizes.top_k});
  const int64_t width = (sizes.hidden + placement.n_slices - 1) / placement.n_slices + kTileRows;
  packed_ = device.allocate(DType::kF32, {computed * std::min(width, sizes.hidden)});
  pieces_ = device.allocate(DType::kF32, {needed * sizes.hidden});
  if (placement.n_slices > 1) joined_ = device.allocate(DType::kF32, {needed * sizes.hidden});
}

int64_t OutputReturn::buffer_bytes(const GridShape& shape,
                                   const ExpertPlacement& placement,
                                   const Sizes& sizes) {
  if (group_size(shape) == 1) return 0;
  const int64_t computed = sizes.received * outputs_per_row(placement, sizes.top_k);
  const int64_t needed = sizes.own * sizes.top_k;
  const int64_t width = (sizes.hidden + placement.n_slices - 1) / placement.n_slices + kTileRows;
  const int64_t copies = placement.n_slices > 1 ? 2 : 1;
  return 4 *
         (computed * (1 + std::min(width, sizes.hidden)) + needed * (1 + copies * sizes.hidden));
}

// Outputs arrive share after share, within a share in the order of rows and then of experts.
void OutputReturn::plan(std::span<const int32_t> experts, int64_t n_rows) {
  const auto entries = static_cast<size_t>(n_rows * sizes_.top_k);
  std::fill(per_share_.begin(), per_share_.end(), 0);
  for (size_t i = 0; i < entries; ++i)
    if (experts[i] >= 0) per_share_[static_cast<size_t>(placement_.share_of(experts[i]))] += 1;
  std::exclusive_scan(per_share_.begin(), per_share_.end(), next_.begin(), int64_t{0});
  for (size_t i = 0; i < entries; ++i)
    host_places_[i] =
        experts[i] < 0
            ? -1
            : static_cast<int32_t>(next_[static_cast<size_t>(placement_.share_of(experts[i]))]++);
  device_.copy(order_.slice(0, n_rows),
               host_tensor(host_places_.data(), DType::kI32, {n_rows, sizes_.top_k}));
}

// This rank's outputs in the order of rows and then of experts; from_: how many for each source.
Tensor OutputReturn::packed(const Outputs& outputs) {
  const int64_t rows = outputs.groups.order.rows();
  device_.copy(host_tensor(host_order_.data(), DType::kI32, {rows, sizes_.top_k}),
               outputs.groups.order);
  device_.wait();
  int64_t n = 0, row = 0;
  const auto take_rows = [&](int64_t n_rows) {
    const int64_t before = n;
    for (int64_t i = row * sizes_.top_k; i < (row + n_rows) * sizes_.top_k; ++i) {
      const int32_t assignment = host_order_[static_cast<size_t>(i)];
      if (assignment >= 0) host_index_[static_cast<size_t>(n++)] = assignment;
    }
    row += n_rows;
    return n - before;
  };
  if (outputs.from_rows.empty()) take_rows(rows);
  for (size_t p = 0; p < outputs.from_rows.size(); ++p) from_[p] = take_rows(outputs.from_rows[p]);
  const Tensor index = index_.slice(0, n);
  device_.copy(index, host_tensor(host_index_.data(), DType::kI32, {n}));
  const Tensor packed = shaped(packed_, n, outputs.rows.cols());
  ops_.gather_rows(packed, outputs.rows, index);
  return packed;
}

// The slices of each share side by side.
Tensor OutputReturn::joined() {
  const int64_t n = total_rows(per_share_);
  if (placement_.n_slices == 1) return shaped(pieces_, n, sizes_.hidden);
  int64_t first = 0;
  for (const int64_t rows : per_share_) {
    const int64_t begin = first * sizes_.hidden, elements = rows * sizes_.hidden;
    ops_.concat_columns(joined_.slice(begin, elements).reshaped({rows, sizes_.hidden}),
                        pieces_.slice(begin, elements),
                        widths_);
    first += rows;
  }
  return shaped(joined_, n, sizes_.hidden);
}

void OutputReturn::run(Tensor out,
                       const Outputs& outputs,
                       std::span<const int32_t> experts,
                       Tensor weights) {
  Communicator& group = grid_.exchange();
  if (group.size() == 1) {
    ops_.combine(out, outputs.rows, outputs.groups);
    return;
  }
  plan(experts, out.rows());
  const Tensor mine = packed(outputs);
  for (size_t p = 0; p < recv_.size(); ++p) {
    const auto slices = static_cast<size_t>(placement_.n_slices);
    recv_[p] = per_share_[p / slices] * widths_[p % slices];
    send_[p] = from_[p] * outputs.rows.cols();
  }
  const Tensor flat = mine.reshaped({mine.elements()});
  const Tensor pieces = pieces_.slice(0, total_rows(recv_));
  if (outputs.from_rows.empty())
    group.all_gather(pieces, flat, recv_);
  else
    group.all_to_all(pieces, recv_, flat, send_);
  const Tensor rows = joined();
  ExpertGroups sum;
  sum.capacity = rows.rows();
  sum.order = order_.slice(0, out.rows());
  sum.weights = weights;
  ops_.combine(out, rows, sum);
}

}  // namespace glm
