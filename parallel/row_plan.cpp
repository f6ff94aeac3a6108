// SPDX-License-Identifier: MIT
#include "parallel/row_plan.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/base/check.h"

namespace glm {

ExpertPlacement::ExpertPlacement(int experts, int shares, int slices)
    : n_experts(experts), n_shares(shares), n_slices(slices), begins() {
  for (int share = 0; share <= shares; ++share)
    begins.push_back(static_cast<int>(int64_t{experts} * share / shares));
}

ExpertPlacement::ExpertPlacement(std::vector<int> borders, int slices)
    : n_experts(borders.back()),
      n_shares(static_cast<int>(borders.size()) - 1),
      n_slices(slices),
      begins(std::move(borders)) {
  GLM_CHECK(begins[0] == 0 && std::is_sorted(begins.begin(), begins.end()),
            "borders of {} experts",
            n_experts);
}

int ExpertPlacement::share_of(int expert) const {
  return static_cast<int>(std::upper_bound(begins.begin(), begins.end(), expert) - begins.begin()) -
         1;
}

int ExpertPlacement::largest() const {
  int most = 0;
  for (int share = 0; share < n_shares; ++share)
    most = std::max(most, begin(share + 1) - begin(share));
  return most;
}

RowPlan::RowPlan(const ExpertPlacement& placement, int top_k, int64_t max_rows, int64_t max_sent)
    : placement_(placement), top_k_(top_k), most_copies_(most_copies(placement, top_k)) {
  const auto group = static_cast<size_t>(placement.n_shares * placement.n_slices);
  sent_.resize(group);
  next_.resize(group);
  last_seen_.resize(static_cast<size_t>(placement.n_shares));
  index_.resize(static_cast<size_t>(max_sent));
  routing_.resize(static_cast<size_t>(max_sent * 2 * top_k_));
  copies_.resize(static_cast<size_t>(max_rows * most_copies_));
}

template <class Visit>
void RowPlan::each_share(std::span<const int32_t> experts, int64_t n_rows, const Visit& visit) {
  std::fill(last_seen_.begin(), last_seen_.end(), -1);
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t j = 0; j < top_k_; ++j) {
      const int32_t expert = experts[static_cast<size_t>(row * top_k_ + j)];
      if (expert < 0) continue;
      const int share = placement_.share_of(expert);
      int64_t& seen = last_seen_[static_cast<size_t>(share)];
      if (seen == row) continue;
      seen = row;
      visit(row, share);
    }
  }
}

void RowPlan::write_row(std::span<const int32_t> experts,
                        std::span<const float> weights,
                        int share,
                        int32_t* routing) const {
  for (size_t j = 0; j < experts.size(); ++j) {
    const bool goes = experts[j] >= 0 && placement_.share_of(experts[j]) == share;
    routing[j] = goes ? experts[j] : -1;
    routing[experts.size() + j] = std::bit_cast<int32_t>(goes ? weights[j] : 0.0f);
  }
}

void RowPlan::make(std::span<const int32_t> experts,
                   std::span<const float> weights,
                   int64_t n_rows) {
  const int slices = placement_.n_slices;
  std::fill(sent_.begin(), sent_.end(), 0);
  each_share(experts, n_rows, [&](int64_t, int share) {
    for (int slice = 0; slice < slices; ++slice)
      sent_[static_cast<size_t>(share * slices + slice)] += 1;
  });
  n_sent_ = std::accumulate(sent_.begin(), sent_.end(), int64_t{0});
  GLM_CHECK(n_sent_ <= static_cast<int64_t>(index_.size()),
            "{} rows for a plan of {}",
            n_sent_,
            index_.size());
  std::exclusive_scan(sent_.begin(), sent_.end(), next_.begin(), int64_t{0});
  std::fill_n(copies_.begin(), n_rows * most_copies_, -1);
  const auto k = static_cast<size_t>(top_k_);
  int64_t last_row = -1, copy = 0;
  each_share(experts, n_rows, [&](int64_t row, int share) {
    const auto first = static_cast<size_t>(row) * k;
    if (row != last_row) copy = row * most_copies_;
    last_row = row;
    for (int slice = 0; slice < slices; ++slice) {
      const int64_t place = next_[static_cast<size_t>(share * slices + slice)]++;
      index_[static_cast<size_t>(place)] = static_cast<int32_t>(row);
      copies_[static_cast<size_t>(copy++)] = static_cast<int32_t>(place);
      write_row(experts.subspan(first, k),
                weights.subspan(first, k),
                share,
                routing_.data() + place * 2 * top_k_);
    }
  });
}

}  // namespace glm
