// From logits to a token, on the leader. The same seed and the same logits give the same tokens, on
// any grid. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/engine/sequence.h"

namespace glm {

// A token that survived the filters, with its probability among the survivors.
struct Candidate {
  int32_t token;
  double probability;
};

// The distribution that sample() draws from, most likely first (ties: lower id first). `history`:
// prompt and answer so far, for the repetition penalty. Filters in the order of SamplingParams,
// each on what the one before left. Throws Error(kNumerical) when a logit is NaN or +infinity, or
// all are -infinity.
std::vector<Candidate> distribution(std::span<const float> logits,
                                    const SamplingParams& params,
                                    std::span<const int32_t> history);

// One draw; `step` numbers the draws of a sequence (answer tokens so far).
int32_t sample(std::span<const float> logits,
               const SamplingParams& params,
               std::span<const int32_t> history,
               uint64_t step);

// A draft token drawn from `guess` against the distribution `wanted` at the same place: taken with
// probability min(1, wanted / guess), else a draw from what `wanted` has more than `guess`.
// Whatever the guess, the result is distributed as `wanted` (Leviathan et al. 2023).
struct Verdict {
  int32_t token = 0;
  bool accepted = false;
};
Verdict verify_draft(const std::vector<Candidate>& wanted,
                     const std::vector<Candidate>& guess,
                     int32_t draft,
                     uint64_t seed,
                     uint64_t step);

// A draw from `candidates`. `stream` names what is drawn, so that draws of one step for different
// purposes are independent.
int32_t draw(const std::vector<Candidate>& candidates,
             uint64_t seed,
             std::string_view stream,
             uint64_t step);

}  // namespace glm
