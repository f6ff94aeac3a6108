// From logits to a token, on the leader. The same seed and the same logits give the same tokens, on
// any grid. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
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

}  // namespace glm
