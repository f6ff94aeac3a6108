// Drawn tokens follow the filtered softmax (chi-square), filters keep what they promise, seeds
// decide. SPDX-License-Identifier: MIT
#include "core/engine/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "core/base/rng.h"

namespace glm {
namespace {

constexpr int kVocab = 40;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> some_logits(uint64_t seed) {
  std::vector<float> logits(kVocab);
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i] = static_cast<float>(6 * uniform_double(seed, i) - 3);
  return logits;
}

// The same filters written down once more, naively, over a table of probabilities.
std::map<int, double> expected(const std::vector<float>& logits, const SamplingParams& p) {
  std::map<int, double> kept;
  for (int i = 0; i < kVocab; ++i)
    kept[i] = std::exp(double{logits[static_cast<size_t>(i)]} / p.temperature);
  const auto best = [&] {
    auto it = kept.begin();
    for (auto i = kept.begin(); i != kept.end(); ++i)
      if (i->second > it->second) it = i;
    return it;
  };
  const auto normalise = [&] {
    double sum = 0;
    for (const auto& [token, weight] : kept) sum += weight;
    for (auto& [token, weight] : kept) weight /= sum;
  };
  const auto keep_best = [&](auto enough) {
    std::map<int, double> chosen;
    double sum = 0;
    while (!kept.empty() && !enough(chosen.size(), sum)) {
      const auto it = best();
      sum += it->second;
      chosen.insert(*it);
      kept.erase(it);
    }
    kept = chosen;
    normalise();
  };
  normalise();
  if (p.top_k > 0) keep_best([&](size_t n, double) { return n == static_cast<size_t>(p.top_k); });
  if (p.top_p < 1) keep_best([&](size_t, double sum) { return sum >= p.top_p; });
  if (p.min_p > 0) {
    const double least = p.min_p * best()->second;
    std::erase_if(kept, [&](const auto& entry) { return entry.second < least; });
    normalise();
  }
  return kept;
}

struct Case {
  const char* name;
  SamplingParams params;
};

class SamplerFilter : public testing::TestWithParam<Case> {};

// Chi-square against the expected distribution; 99.9 % quantile by Wilson and Hilferty (1931).
TEST_P(SamplerFilter, DrawsTheExpectedDistribution) {
  const std::vector<float> logits = some_logits(3);
  SamplingParams params = GetParam().params;
  params.seed = 11;
  const std::map<int, double> expect = expected(logits, params);
  constexpr int kDraws = 20000;
  std::map<int, int> seen;
  for (uint64_t i = 0; i < kDraws; ++i) ++seen[sample(logits, params, {}, i)];
  double chi = 0, rest_expected = 0;
  int rest_seen = 0, cells = 0;
  for (const auto& [token, probability] : expect) {
    const double mean = probability * kDraws;
    if (mean < 10) {  // rare tokens share one cell
      rest_expected += mean;
      rest_seen += seen[token];
      continue;
    }
    chi += (seen[token] - mean) * (seen[token] - mean) / mean;
    ++cells;
  }
  if (rest_expected > 5) {
    chi += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
    ++cells;
  }
  for (const auto& [token, count] : seen) {
    EXPECT_TRUE(count == 0 || expect.contains(token)) << token << " was filtered out";
  }
  const double k = cells - 1;
  if (k > 0) {
    const double limit = k * std::pow(1 - 2 / (9 * k) + 3.09 * std::sqrt(2 / (9 * k)), 3);
    EXPECT_LT(chi, limit) << cells << " cells";
  }
}

SamplingParams make(float temperature, int top_k, float top_p, float min_p) {
  SamplingParams p;
  p.temperature = temperature;
  p.top_k = top_k;
  p.top_p = top_p;
  p.min_p = min_p;
  return p;
}

INSTANTIATE_TEST_SUITE_P(Filters,
                         SamplerFilter,
                         testing::Values(Case{"plain", make(1, 0, 1, 0)},
                                         Case{"hot", make(1.7f, 0, 1, 0)},
                                         Case{"cold", make(0.5f, 0, 1, 0)},
                                         Case{"top_k", make(1, 5, 1, 0)},
                                         Case{"top_p", make(1, 0, 0.8f, 0)},
                                         Case{"min_p", make(1, 0, 1, 0.2f)},
                                         Case{"all", make(0.9f, 12, 0.9f, 0.1f)}),
                         [](const auto& filter) { return filter.param.name; });

TEST(Sampler, SameSeedSameTokens) {
  const std::vector<float> logits = some_logits(5);
  SamplingParams params;
  int differ = 0;
  for (uint64_t step = 0; step < 50; ++step) {
    params.seed = 1;
    const int32_t a = sample(logits, params, {}, step);
    EXPECT_EQ(a, sample(logits, params, {}, step));
    params.seed = 2;
    differ += a != sample(logits, params, {}, step);
  }
  EXPECT_GT(differ, 10);
}

TEST(Sampler, GreedyTakesTheFirstOfTheBest) {
  std::vector<float> logits(kVocab, 0.0f);
  logits[7] = logits[9] = 2.0f;
  SamplingParams params;
  params.temperature = 0;
  EXPECT_EQ(sample(logits, params, {}, 0), 7);
}

TEST(Sampler, PenaltyMakesSeenTokensLessLikely) {
  std::vector<float> logits(kVocab, -1.0f);
  logits[3] = 2.0f;
  logits[4] = 1.5f;
  SamplingParams params;
  params.temperature = 0;
  params.repetition_penalty = 2.0f;
  const std::vector<int32_t> history = {3, 3, 5};
  EXPECT_EQ(sample(logits, params, history, 0), 4);
  params.temperature = 1;
  double p3 = 0, p5 = 0, p6 = 0;
  for (const Candidate& c : distribution(logits, params, history)) {
    if (c.token == 3) p3 = c.probability;
    if (c.token == 5) p5 = c.probability;
    if (c.token == 6) p6 = c.probability;
  }
  EXPECT_NEAR(p3 / p6, std::exp(2.0), 1e-6);   // 2 / 2 against -1
  EXPECT_NEAR(p5 / p6, std::exp(-1.0), 1e-6);  // -1 * 2 against -1
}

TEST(Sampler, RefusesBrokenLogits) {
  SamplingParams params;
  for (const float bad : {std::nanf(""), kInfinity}) {
    std::vector<float> logits(kVocab, 0.0f);
    logits[12] = bad;
    try {
      sample(logits, params, {}, 0);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kNumerical);
      EXPECT_NE(std::string(error.what()).find("token 12"), std::string::npos);
    }
  }
  EXPECT_THROW(sample(std::vector<float>(kVocab, -kInfinity), params, {}, 0), Error);
}

}  // namespace
}  // namespace glm
