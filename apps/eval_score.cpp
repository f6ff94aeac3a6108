// SPDX-License-Identifier: MIT
#include "apps/eval_score.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace glm {
namespace {

// ln of the sum of exp(logits).
double log_sum(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - top);
  return top + std::log(sum);
}

}  // namespace

std::vector<TextWindow> cut_windows(std::span<const int32_t> ids,
                                    std::span<const int32_t> prefix,
                                    int64_t window,
                                    int64_t stride) {
  const auto size = static_cast<int64_t>(ids.size());
  const auto n_prefix = static_cast<int64_t>(prefix.size());
  if (n_prefix == 0) stride = std::min(stride, window - 1);  // something must predict
  GLM_CHECK(stride >= 1 && window >= stride, "window {} and stride {}", window, stride);
  std::vector<TextWindow> windows;
  int64_t place = 0;
  for (int64_t start = 0; start < size; start += stride) {
    const int64_t first = std::max<int64_t>(0, start + stride - window);
    const int64_t end = std::min(start + stride, size);
    const int64_t counted = std::max<int64_t>(start, n_prefix == 0 ? 1 : 0);
    if (counted >= end) continue;
    TextWindow out;
    out.prompt.assign(prefix.begin(), prefix.end());
    out.prompt.insert(out.prompt.end(), ids.begin() + first, ids.begin() + end - 1);
    out.first_row = n_prefix + counted - first - 1;
    out.first_place = place;
    out.counted.assign(ids.begin() + counted, ids.begin() + end);
    place += end - counted;
    windows.push_back(std::move(out));
  }
  return windows;
}

int64_t counted_tokens(std::span<const TextWindow> windows) {
  if (windows.empty()) return 0;
  return windows.back().first_place + static_cast<int64_t>(windows.back().counted.size());
}

double log_probability(std::span<const float> logits, int32_t token) {
  return double{logits[static_cast<size_t>(token)]} - log_sum(logits);
}

RowDistance row_distance(std::span<const float> p_logits, std::span<const float> q_logits) {
  GLM_CHECK(p_logits.size() == q_logits.size() && !p_logits.empty(), "rows of two vocabularies");
  const double p_sum = log_sum(p_logits);
  const double q_sum = log_sum(q_logits);
  RowDistance out;
  for (size_t i = 0; i < p_logits.size(); ++i) {
    const double log_p = double{p_logits[i]} - p_sum;
    out.divergence += std::exp(log_p) * (log_p - (double{q_logits[i]} - q_sum));
  }
  out.divergence = std::max(0.0, out.divergence);  // rounding
  out.same_top = std::max_element(p_logits.begin(), p_logits.end()) - p_logits.begin() ==
                 std::max_element(q_logits.begin(), q_logits.end()) - q_logits.begin();
  return out;
}

double perplexity(std::span<const double> log_probabilities) {
  double sum = 0;
  for (const double value : log_probabilities) sum += value;
  return std::exp(-sum / static_cast<double>(log_probabilities.size()));
}

Spread spread(std::vector<double> values) {
  GLM_CHECK(!values.empty(), "no values");
  std::sort(values.begin(), values.end());
  const auto size = static_cast<double>(values.size());
  const auto rank = [&](double share) {
    return values[static_cast<size_t>(std::max(1.0, std::ceil(share * size))) - 1];
  };
  Spread out;
  for (const double value : values) out.mean += value / size;
  out.median = rank(0.5);
  out.percentile_99 = rank(0.99);
  out.largest = values.back();
  return out;
}

std::string final_answer(std::string_view text) {
  constexpr std::string_view kEnd = "</think>";
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t end = text.rfind(kEnd);
  if (end != std::string_view::npos) text.remove_prefix(end + kEnd.size());
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(kSpace) - first + 1));
}

}  // namespace glm
