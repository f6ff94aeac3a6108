// Plans for ranks that can hold unequal amounts. SPDX-License-Identifier: MIT
#include <algorithm>

#include "core/model/memory_plan.h"

namespace glm {
namespace {

int64_t expert_bytes(const RankPlan& rank) {
  const auto found = rank.weights.find(Kind::kExperts);
  return found == rank.weights.end() ? 0 : found->second;
}

// Capacities less what stays on a rank however layers are divided.
Capacities left_for_layers(const MemoryPlan& plan, const Capacities& capacities) {
  Capacities left;
  for (size_t r = 0; r < capacities.size(); ++r)
    left.push_back(std::max<int64_t>(
        1, capacities[r] - plan.ranks[r].buffer_bytes - plan.ranks[r].process_bytes));
  return left;
}

// Deals the experts of each group anew, by what its ranks have left beside everything else.
void divide_experts(Division& division, const MemoryPlan& plan, const Capacities& capacities) {
  const int group = exchange_size(division.shape);
  const int slices = expert_slices(division.shape);
  for (int first = 0; first < division.shape.world(); first += group) {
    // Bytes that one expert takes on a rank: any rank of the group that holds some shows it.
    double bytes_each = 0;
    for (int rank = first; rank < first + group; ++rank) {
      const RankPlan& row = plan.ranks[static_cast<size_t>(rank)];
      if (row.experts.size() > 0)
        bytes_each = std::max(
            bytes_each,
            static_cast<double>(expert_bytes(row)) / static_cast<double>(row.experts.size()));
    }
    if (bytes_each <= 0) continue;  // dense, or a stage without such layers
    std::vector<double> weights;
    std::vector<int> limits;
    for (int begin = first; begin < first + group; begin += slices) {
      int64_t room = capacities[static_cast<size_t>(begin)];
      for (int rank = begin; rank < begin + slices; ++rank) {
        const auto r = static_cast<size_t>(rank);
        const RankPlan& row = plan.ranks[r];
        room = std::min(room, capacities[r] - row.total_bytes() + expert_bytes(row));
      }
      const double experts = std::max(0.0, static_cast<double>(room) / bytes_each);
      weights.push_back(experts + 1e-9);  // a sum above zero even where nothing fits
      limits.push_back(static_cast<int>(std::min(experts, 1e9)));
    }
    const auto at = static_cast<size_t>(first / group);
    const int n_experts = division.experts[at].n_experts;
    division.experts[at] = ExpertPlacement(expert_borders(n_experts, weights, limits), slices);
  }
}

}  // namespace

int rank_over_capacity(const MemoryPlan& plan, const Capacities& capacities) {
  for (size_t r = 0; r < capacities.size(); ++r)
    if (plan.ranks[r].total_bytes() > capacities[r]) return static_cast<int>(r);
  return -1;
}

FittedPlan fit_plan(const ModelConfig& config,
                    const DTypeChoice& dtypes,
                    const GridShape& shape,
                    const Capacities& capacities,
                    const std::function<MemoryPlan(const Division&)>& plan_of,
                    bool mtp) {
  FittedPlan out;
  out.division = divide_model(config, dtypes, shape, capacities, mtp);
  out.plan = plan_of(out.division);
  const auto fits = [&] { return rank_over_capacity(out.plan, capacities) < 0; };
  const auto deal_experts = [&] {
    divide_experts(out.division, out.plan, capacities);
    out.plan = plan_of(out.division);
  };
  if (fits()) return out;
  deal_experts();
  if (fits()) return out;
  out.division = divide_model(config, dtypes, shape, left_for_layers(out.plan, capacities), mtp);
  out.plan = plan_of(out.division);
  if (fits()) return out;
  deal_experts();
  return out;
}

}  // namespace glm
