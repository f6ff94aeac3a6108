// Choosing experts, grouping rows by expert, and adding up what the experts returned.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ref/ref_ops.h"

namespace glm {
namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

std::vector<float> scores_of(const float* logits, const RouterConfig& config) {
  const auto n = static_cast<size_t>(config.n_experts);
  std::vector<float> scores(n);
  if (config.kind == RouterKind::kSigmoid) {
    for (size_t e = 0; e < n; ++e)
      scores[e] = static_cast<float>(1.0 / (1.0 + std::exp(-double{logits[e]})));
    return scores;
  }
  const double largest = *std::max_element(logits, logits + n);
  double total = 0;
  for (size_t e = 0; e < n; ++e) total += std::exp(logits[e] - largest);
  for (size_t e = 0; e < n; ++e)
    scores[e] = static_cast<float>(std::exp(logits[e] - largest) / total);
  return scores;
}

// The k indices of the largest values, ties to the lower index; NaN counts as the smallest.
std::vector<int> largest_indices(const std::vector<float>& values, int k) {
  std::vector<bool> taken(values.size(), false);
  std::vector<int> chosen;
  for (int i = 0; i < k; ++i) {
    int best = -1;
    for (int e = 0; e < static_cast<int>(values.size()); ++e) {
      const auto at = static_cast<size_t>(e);
      if (taken[at]) continue;
      if (best < 0 || values[at] > values[static_cast<size_t>(best)] ||
          (std::isnan(values[static_cast<size_t>(best)]) && !std::isnan(values[at])))
        best = e;
    }
    taken[static_cast<size_t>(best)] = true;
    chosen.push_back(best);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

// -inf for experts outside the topk_group groups with the largest sum of their two best choices.
void exclude_groups(std::vector<float>& choice, const RouterConfig& config) {
  const int size = config.n_experts / config.n_group;
  std::vector<float> sums(static_cast<size_t>(config.n_group));
  for (int g = 0; g < config.n_group; ++g) {
    const std::vector<float> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    float sum = 0.0f;
    for (const int e : largest_indices(members, std::min(2, size)))
      sum += members[static_cast<size_t>(e)];
    sums[static_cast<size_t>(g)] = sum;
  }
  const std::vector<int> kept = largest_indices(sums, config.topk_group);
  for (int e = 0; e < config.n_experts; ++e)
    if (!std::binary_search(kept.begin(), kept.end(), e / size))
      choice[static_cast<size_t>(e)] = kExcluded;
}

}  // namespace

void RefOps::do_route(
    Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) {
  for (int64_t t = 0; t < logits.rows(); ++t) {
    const std::vector<float> scores = scores_of(logits.f32() + t * config.n_experts, config);
    std::vector<float> choice = scores;
    if (!bias.absent())
      for (size_t e = 0; e < choice.size(); ++e) choice[e] += bias.f32()[e];
    if (config.n_group > 1) exclude_groups(choice, config);
    const std::vector<int> chosen = largest_indices(choice, config.top_k);
    double total = config.kind == RouterKind::kSigmoid ? 1e-20 : 0.0;
    for (const int e : chosen) total += double{scores[static_cast<size_t>(e)]};
    for (int k = 0; k < config.top_k; ++k) {
      const int e = chosen[static_cast<size_t>(k)];
      const double score = scores[static_cast<size_t>(e)];
      experts.i32()[t * config.top_k + k] = e;
      weights.f32()[t * config.top_k + k] =
          static_cast<float>((config.norm_topk ? score / total : score) * double{config.scale});
    }
  }
}

void RefOps::do_group_rows(ExpertGroups& groups, Tensor experts, Tensor weights, int first_expert) {
  const int64_t top_k = experts.cols();
  int32_t* order = groups.order.i32();
  std::fill(order, order + experts.elements(), -1);
  std::fill(groups.weights.f32(), groups.weights.f32() + experts.elements(), 0.0f);
  int32_t assignment = 0;
  for (int e = 0; e < groups.n_experts; ++e) {
    groups.offsets.i32()[e] = assignment;
    for (int64_t t = 0; t < experts.rows(); ++t) {
      for (int64_t k = 0; k < top_k; ++k) {
        if (experts.i32()[t * top_k + k] != first_expert + e) continue;
        int64_t place = t * top_k;
        while (order[place] >= 0) ++place;
        order[place] = assignment;
        groups.weights.f32()[place] = weights.f32()[t * top_k + k];
        groups.rows.i32()[assignment++] = static_cast<int32_t>(t);
      }
    }
  }
  groups.offsets.i32()[groups.n_experts] = assignment;
}

void RefOps::do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) {
  const int64_t cols = out.cols();
  const int64_t top_k = groups.order.cols();
  for (int64_t t = 0; t < out.rows(); ++t) {
    for (int64_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < top_k; ++k) {
        const int64_t assignment = groups.order.i32()[t * top_k + k];
        if (assignment < 0) break;
        sum += double{groups.weights.f32()[t * top_k + k]} * rows.f32()[assignment * cols + c];
      }
      out.f32()[t * cols + c] = static_cast<float>(sum);
    }
  }
}

}  // namespace glm
