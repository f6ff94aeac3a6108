// What a model costs, part by part, and how unevenly its experts are chosen: the numerators of the
// model of time in grid_cost.cpp. SPDX-License-Identifier: MIT
#include <algorithm>
#include <set>

#include "core/model/grid_planner.h"

namespace glm {
namespace {

void add(WeightCost& cost, double bytes, double elements) {
  cost.bytes += bytes;
  cost.elements += elements;
}

}  // namespace

ModelCosts model_costs(const ModelConfig& config,
                       const std::map<std::string, StoredType, std::less<>>& stored,
                       KvDType kv_dtype) {
  ModelCosts parts;
  parts.position_bytes =
      2.0 * static_cast<double>(KvLayer::page_bytes(kv_dtype, 1, config.head_dim)) / kKvBlockTokens;
  parts.layers.resize(static_cast<size_t>(config.n_layers));
  for (const TensorSpec& spec : tensor_specs(config, false)) {
    const auto type = stored.find(spec.name);
    GLM_CHECK(type != stored.end(), "no stored type of {}", spec.name);
    const auto bytes = static_cast<double>(stored_bytes(spec, type->second));
    const auto elements = static_cast<double>(spec.elements());
    if (spec.layer < 0) {
      if (spec.kind == Kind::kHead || (spec.kind == Kind::kEmbedding && config.tied))
        add(parts.head, bytes, elements);
      continue;
    }
    LayerCosts& layer = parts.layers[static_cast<size_t>(spec.layer)];
    const auto matrices = static_cast<double>(spec.n_matrices());
    if (spec.experts) {
      add(layer.expert, bytes / matrices, elements / matrices);
      layer.moe = true;
    } else if (spec.kind == Kind::kAttention) {
      add(layer.attention, bytes, elements);
    } else if (spec.split == Split::kNone) {
      add(layer.whole, bytes, elements);
    } else {
      add(layer.ffn, bytes, elements);
    }
  }
  return parts;
}

double busiest_share(int n_experts, int top_k, int n_shares) {
  return busiest_share(ExpertPlacement(n_experts, n_shares, 1), top_k);
}

double busiest_share(const ExpertPlacement& placement,
                     int top_k,
                     const std::vector<double>& speeds) {
  const auto k = static_cast<size_t>(top_k);
  const auto choose = [](int n, size_t j) {
    double ways = 1;
    for (size_t i = 0; i < j; ++i)
      ways *= (n - static_cast<double>(i)) / (static_cast<double>(i) + 1);
    return ways;
  };
  const double all = choose(placement.n_experts, k);
  // ways[j]: of choosing j experts while no share has more than it gets done in `time`.
  const auto done_within = [&](double time) {
    std::vector<double> ways(k + 1, 0.0);
    ways[0] = 1;
    for (int share = 0; share < placement.n_shares; ++share) {
      const int held = placement.begin(share + 1) - placement.begin(share);
      const double speed = speeds.empty() ? 1 : speeds[static_cast<size_t>(share)];
      const auto most = static_cast<size_t>(std::min<double>(top_k, time * speed + 1e-9));
      std::vector<double> next(k + 1, 0.0);
      for (size_t taken = 0; taken <= std::min(most, static_cast<size_t>(held)); ++taken)
        for (size_t j = 0; j + taken <= k; ++j) next[j + taken] += ways[j] * choose(held, taken);
      ways = next;
    }
    return ways[k] / all;
  };
  // The times at which a share can be ready; the mean is the integral of the probability that more
  // time is needed.
  std::set<double> times;
  for (size_t count = 1; count <= k; ++count)
    for (const double speed : speeds.empty() ? std::vector<double>{1} : speeds)
      times.insert(static_cast<double>(count) / speed);
  double mean = 0;
  double before = 0;
  for (const double time : times) {
    mean += (time - before) * (1 - done_within(before));
    before = time;
  }
  return mean;
}

}  // namespace glm
