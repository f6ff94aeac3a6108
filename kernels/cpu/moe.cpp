// Choosing experts, grouping rows by expert, and adding up what the experts returned.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"

namespace glm {
namespace {

constexpr int kMaxExperts = 1024;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Order of choice: larger first, NaN last, ties to the lower index.
bool better(float a, float b) { return a > b || (std::isnan(b) && !std::isnan(a)); }

// Marks the k best of n values in `chosen`, which is all false on entry.
void mark_best(const float* values, int n, int k, bool* chosen) {
  for (int i = 0; i < k; ++i) {
    int best = -1;
    for (int e = 0; e < n; ++e)
      if (!chosen[e] && (best < 0 || better(values[e], values[best]))) best = e;
    chosen[best] = true;
  }
}

// Sum of the two best values of a group, or the only one.
float two_best(const float* values, int n) {
  float first = values[0];
  if (n == 1) return first;
  float second = values[1];
  if (better(second, first)) std::swap(first, second);
  for (int e = 2; e < n; ++e) {
    if (better(values[e], first)) {
      second = first;
      first = values[e];
    } else if (better(values[e], second)) {
      second = values[e];
    }
  }
  return first + second;
}

void exclude_groups(float* choice, const RouterConfig& config) {
  const int size = config.n_experts / config.n_group;
  float sums[kMaxExperts];
  bool kept[kMaxExperts] = {};
  for (int g = 0; g < config.n_group; ++g) sums[g] = two_best(choice + g * size, size);
  mark_best(sums, config.n_group, config.topk_group, kept);
  for (int e = 0; e < config.n_experts; ++e)
    if (!kept[e / size]) choice[e] = kLowest;
}

void route_row(const KernelTable& table,
               const float* logits,
               const float* bias,
               const RouterConfig& config,
               int32_t* experts,
               float* weights) {
  float scores[kMaxExperts];
  float choice[kMaxExperts];
  bool chosen[kMaxExperts] = {};
  const int n = config.n_experts;
  const bool sigmoid = config.kind == RouterKind::kSigmoid;
  (sigmoid ? table.sigmoid : table.softmax)(logits, n, scores);
  for (int e = 0; e < n; ++e) choice[e] = bias == nullptr ? scores[e] : scores[e] + bias[e];
  if (config.n_group > 1) exclude_groups(choice, config);
  mark_best(choice, n, config.top_k, chosen);
  float total = 0.0f;
  int k = 0;
  for (int e = 0; e < n; ++e) {
    if (!chosen[e]) continue;
    experts[k] = e;
    weights[k++] = scores[e];
    total += scores[e];
  }
  if (sigmoid) total += 1e-20f;
  for (k = 0; k < config.top_k; ++k)
    weights[k] = (config.norm_topk ? weights[k] / total : weights[k]) * config.scale;
}

}  // namespace

void CpuOps::do_route(
    Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) {
  GLM_CHECK(config.n_experts <= kMaxExperts, "{} experts", config.n_experts);
  const float* bias_data = bias.absent() ? nullptr : bias.f32();
  const int64_t n = config.n_experts;
  const int64_t k = config.top_k;
  pool_.parallel_for(logits.rows(), row_grain(16 * n), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      route_row(table_,
                logits.f32() + t * n,
                bias_data,
                config,
                experts.i32() + t * k,
                weights.f32() + t * k);
  });
}

// A counting sort. While rows are placed, offsets[e] is the next free assignment of expert e.
void CpuOps::do_group_rows(ExpertGroups& groups, Tensor experts, Tensor weights, int first_expert) {
  const int64_t entries = experts.elements();
  const int64_t top_k = experts.rows() == 0 ? 1 : experts.cols();
  const int32_t* ids = experts.i32();
  int32_t* offsets = groups.offsets.i32();
  int32_t* order = groups.order.i32();
  float* order_weights = groups.weights.f32();
  const auto local = [&](int64_t i) {
    const int64_t e = int64_t{ids[i]} - first_expert;
    return e >= 0 && e < groups.n_experts ? e : -1;
  };
  std::fill(offsets, offsets + groups.n_experts + 1, 0);
  for (int64_t i = 0; i < entries; ++i)
    if (local(i) >= 0) ++offsets[local(i) + 1];
  for (int e = 0; e < groups.n_experts; ++e) offsets[e + 1] += offsets[e];
  for (int64_t i = 0; i < entries; ++i) {
    if (i % top_k == 0) {
      std::fill(order + i, order + i + top_k, -1);
      std::fill(order_weights + i, order_weights + i + top_k, 0.0f);
    }
    if (local(i) < 0) continue;
    const int32_t assignment = offsets[local(i)]++;
    groups.rows.i32()[assignment] = static_cast<int32_t>(i / top_k);
    int64_t place = i / top_k * top_k;  // entries of a row ascend
    while (order[place] >= 0 && order[place] < assignment) ++place;
    int64_t last = place;
    while (order[last] >= 0) ++last;
    std::copy_backward(order + place, order + last, order + last + 1);
    std::copy_backward(order_weights + place, order_weights + last, order_weights + last + 1);
    order[place] = assignment;
    order_weights[place] = weights.f32()[i];
  }
  std::copy_backward(offsets, offsets + groups.n_experts, offsets + groups.n_experts + 1);
  offsets[0] = 0;
}

// One multiply and one add each, in the order of the experts.
void CpuOps::do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) {
  const int64_t cols = out.cols();
  const int64_t top_k = out.rows() == 0 ? 0 : groups.order.cols();
  const int64_t grain = row_grain((top_k + 1) * cols);
  pool_.parallel_for(out.rows(), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* to = out.f32() + t * cols;
      const int32_t* order = groups.order.i32() + t * top_k;
      const float* weights = groups.weights.f32() + t * top_k;
      if (top_k == 0 || order[0] < 0) {
        std::fill(to, to + cols, 0.0f);
        continue;
      }
      for (int64_t k = 0; k < top_k && order[k] >= 0; ++k) {
        const float* from = rows.f32() + order[k] * cols;
        const float weight = weights[k];
        if (k == 0)
          for (int64_t c = 0; c < cols; ++c) to[c] = weight * from[c];
        else
          for (int64_t c = 0; c < cols; ++c) to[c] += weight * from[c];
      }
    }
  });
}

}  // namespace glm
