// SPDX-License-Identifier: MIT
#include "core/model/division.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace glm {
namespace {

constexpr double kAlike = 0.95;

// What each share of an exchange group can hold: its ranks slice every expert evenly, so the
// smallest one decides.
std::vector<double> share_capacities(const GridShape& shape,
                                     const Capacities& capacities,
                                     int first_rank) {
  const int slices = expert_slices(shape);
  std::vector<double> shares;
  for (int rank = first_rank; rank < first_rank + exchange_size(shape); rank += slices) {
    const auto begin = capacities.begin() + rank;
    shares.push_back(static_cast<double>(slices) *
                     static_cast<double>(*std::min_element(begin, begin + slices)));
  }
  return shares;
}

// Data groups that hold copies are alike within a stage, so the smallest one decides.
std::vector<double> stage_capacities(const GridShape& shape, const Capacities& capacities) {
  const int group = exchange_size(shape);
  const int plane = shape.data * shape.tensor;
  std::vector<double> stages(static_cast<size_t>(shape.pipeline));
  for (int first = 0; first < shape.world(); first += group) {
    const std::vector<double> shares = share_capacities(shape, capacities, first);
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    double& stage = stages[static_cast<size_t>(first / plane)];
    stage = first % plane == 0 ? sum : std::min(stage, sum);
  }
  return stages;
}

// Takes experts from shares beyond their limit and gives them to those with the most room.
void keep_limits(std::vector<int>& counts, const std::vector<int>& limits) {
  for (size_t share = 0; share < counts.size(); ++share)
    while (counts[share] > std::max(0, limits[share])) {
      size_t roomy = share;
      for (size_t other = 0; other < counts.size(); ++other)
        if (limits[other] - counts[other] > limits[roomy] - counts[roomy]) roomy = other;
      if (limits[roomy] - counts[roomy] <= 0) return;
      --counts[share];
      ++counts[roomy];
    }
}

}  // namespace

Placement Division::placement(int rank, Numerics numerics) const {
  Placement out;
  out.shape = shape;
  out.coord = grid_coord(shape, rank);
  out.stages = stages;
  out.experts = experts[static_cast<size_t>(exchange_group(shape, out.coord))];
  out.numerics = numerics;
  out.mtp = mtp;
  return out;
}

std::vector<int> expert_borders(int n_experts,
                                const std::vector<double>& weights,
                                const std::vector<int>& limits) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  GLM_CHECK(!weights.empty() && sum > 0, "{} shares weigh {}", weights.size(), sum);
  std::vector<int> counts;
  double before = 0;
  int begin = 0;
  for (size_t share = 0; share < weights.size(); ++share) {
    before += weights[share];
    const bool last = share + 1 == weights.size();
    const int end = last ? n_experts : static_cast<int>(n_experts * before / sum);
    counts.push_back(end - begin);
    begin = end;
  }
  if (!limits.empty()) keep_limits(counts, limits);
  std::vector<int> borders = {0};
  for (const int count : counts) borders.push_back(borders.back() + count);
  return borders;
}

Division divide_model(const ModelConfig& config,
                      const DTypeChoice& dtypes,
                      const GridShape& shape,
                      const Capacities& capacities,
                      bool mtp) {
  const auto world = static_cast<size_t>(shape.world());
  GLM_CHECK(capacities.empty() || capacities.size() == world, "{} capacities", capacities.size());
  const Capacities alike(world, 1);
  const Capacities& given = capacities.empty() ? alike : capacities;
  Division out;
  out.shape = shape;
  out.mtp = mtp;
  out.stages = stage_layers(config, dtypes, shape.pipeline, stage_capacities(shape, given), mtp);
  for (int first = 0; first < shape.world(); first += exchange_size(shape))
    out.experts.emplace_back(
        expert_borders(config.router.n_experts, share_capacities(shape, given, first)),
        expert_slices(shape));
  return out;
}

Capacities measured_capacities(const std::vector<std::string>& hosts,
                               const std::vector<int64_t>& available) {
  if (hosts.empty()) return {};
  std::map<std::string, std::pair<int64_t, int64_t>> nodes;  // host -> ranks, memory
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    auto [node, added] = nodes.try_emplace(hosts[rank], 0, available[rank]);
    node->second.first += 1;
    node->second.second = std::min(node->second.second, available[rank]);
  }
  Capacities out;
  for (const std::string& host : hosts) {
    const auto& [ranks, memory] = nodes.at(host);
    out.push_back(std::max<int64_t>(1, memory / ranks));
  }
  const auto [least, most] = std::minmax_element(out.begin(), out.end());
  const bool alike = static_cast<double>(*least) >= kAlike * static_cast<double>(*most);
  return alike ? Capacities() : out;
}

}  // namespace glm
