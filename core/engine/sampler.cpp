// SPDX-License-Identifier: MIT
#include "core/engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/base/rng.h"

namespace glm {
namespace {

struct Scored {
  float logit;
  int32_t token;
};

bool better(const Scored& a, const Scored& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

std::vector<Scored> scored(std::span<const float> logits) {
  std::vector<Scored> out(logits.size());
  bool any = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || (std::isinf(logits[i]) && logits[i] > 0))
      fail(ExitCode::kNumerical,
           "the logit of token {} is {}; weights or a kernel are broken (--ops checked finds the "
           "operation)",
           i,
           logits[i]);
    any = any || !std::isinf(logits[i]);
    out[i] = {logits[i], static_cast<int32_t>(i)};
  }
  if (!any) fail(ExitCode::kNumerical, "all {} logits are -infinity", logits.size());
  return out;
}

// Keskar et al. 2019: positive logits of seen tokens are divided, negative ones multiplied.
void penalise(std::vector<Scored>& all, float penalty, std::span<const int32_t> history) {
  std::vector<int32_t> seen(history.begin(), history.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const int32_t token : seen) {
    if (token < 0 || static_cast<size_t>(token) >= all.size()) continue;
    float& logit = all[static_cast<size_t>(token)].logit;
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

// Probabilities of `sorted` (descending logits) after division by the temperature, normalised over
// them.
std::vector<Candidate> softmax(const std::vector<Scored>& sorted, double temperature) {
  std::vector<Candidate> out;
  out.reserve(sorted.size());
  double sum = 0;
  for (const Scored& s : sorted) {
    const double p = std::exp((double{s.logit} - double{sorted[0].logit}) / temperature);
    out.push_back({s.token, p});
    sum += p;
  }
  for (Candidate& c : out) c.probability /= sum;
  return out;
}

void renormalise(std::vector<Candidate>& kept) {
  double sum = 0;
  for (const Candidate& c : kept) sum += c.probability;
  for (Candidate& c : kept) c.probability /= sum;
}

}  // namespace

std::vector<Candidate> distribution(std::span<const float> logits,
                                    const SamplingParams& params,
                                    std::span<const int32_t> history) {
  std::vector<Scored> all = scored(logits);
  if (params.repetition_penalty != 1.0f) penalise(all, params.repetition_penalty, history);
  if (params.temperature == 0)
    return {{std::min_element(all.begin(), all.end(), better)->token, 1.0}};

  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < all.size()) {
    std::nth_element(all.begin(), all.begin() + params.top_k - 1, all.end(), better);
    all.resize(static_cast<size_t>(params.top_k));
  }
  std::sort(all.begin(), all.end(), better);
  std::vector<Candidate> kept = softmax(all, params.temperature);
  if (params.top_p < 1.0f) {
    double sum = 0;
    size_t n = 0;
    while (n < kept.size() && sum < params.top_p) sum += kept[n++].probability;
    kept.resize(std::max<size_t>(n, 1));
    renormalise(kept);
  }
  if (params.min_p > 0.0f) {
    const double least = params.min_p * kept[0].probability;
    std::erase_if(kept, [&](const Candidate& c) { return c.probability < least; });
    renormalise(kept);
  }
  return kept;
}

int32_t sample(std::span<const float> logits,
               const SamplingParams& params,
               std::span<const int32_t> history,
               uint64_t step) {
  return draw(distribution(logits, params, history), params.seed, "sampler", step);
}

int32_t draw(const std::vector<Candidate>& candidates,
             uint64_t seed,
             std::string_view stream,
             uint64_t step) {
  const double u = uniform_double(stream_key(seed, stream), step);
  double sum = 0;
  for (const Candidate& c : candidates) {
    sum += c.probability;
    if (u < sum) return c.token;
  }
  return candidates.back().token;
}

Verdict verify_draft(const std::vector<Candidate>& wanted,
                     const std::vector<Candidate>& guess,
                     int32_t draft,
                     uint64_t seed,
                     uint64_t step) {
  const auto less_token = [](const Candidate& a, const Candidate& b) { return a.token < b.token; };
  std::vector<Candidate> known = guess;
  std::sort(known.begin(), known.end(), less_token);
  const auto guessed = [&](int32_t token) {
    const auto at = std::lower_bound(known.begin(), known.end(), Candidate{token, 0}, less_token);
    return at != known.end() && at->token == token ? at->probability : 0.0;
  };
  std::vector<Candidate> rest;
  double sum = 0;
  double p = 0;
  for (const Candidate& c : wanted) {
    if (c.token == draft) p = c.probability;
    const double more = c.probability - guessed(c.token);
    if (more <= 0) continue;
    rest.push_back({c.token, more});
    sum += more;
  }
  const double u = uniform_double(stream_key(seed, "verify"), step);
  // Without a rest the two are equal but for rounding.
  if (u * guessed(draft) < p || rest.empty()) return {draft, true};
  for (Candidate& c : rest) c.probability /= sum;
  return {draw(rest, seed, "sampler", step), false};
}

}  // namespace glm
