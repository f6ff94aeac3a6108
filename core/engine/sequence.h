// What a caller asks for and what the engine knows of it: plain values.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

namespace glm {

// How the next token is drawn; filters apply in the order of the fields (docs/running.md). Neutral
// values switch a filter off.
struct SamplingParams {
  float repetition_penalty = 1.0f;  // > 1 makes tokens of prompt and answer less likely
  float temperature = 1.0f;         // 0: the most likely token
  int top_k = 0;                    // keep the k most likely; 0: all
  float top_p = 1.0f;               // keep the smallest set of at least this probability
  float min_p = 0.0f;               // keep tokens at least this likely relative to the best
  uint64_t seed = 0;
};

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  SamplingParams sampling;
  int64_t max_tokens = 0;         // answer tokens, at least 1
  std::vector<int32_t> stop_ids;  // end the answer and are not part of it
  bool all_logits = false;        // hand over the logits of every position ...
  int64_t first_logits = 0;       // ... from this one on
  bool keep_cache = false;        // leave the cache to a later request with the same beginning
  bool draft = false;             // guess tokens ahead with the MTP layer; not with all_logits
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled };

// A request on its way.
struct Sequence {
  int32_t id = 0;  // ascending in the order of submission
  Request request;
  std::vector<int32_t> tokens;  // prompt, then answer
  int64_t computed = 0;         // positions that the planned steps leave in the cache
  int64_t cached = 0;           // positions that an earlier sequence has left it
  int64_t logits_given = 0;     // positions whose logits were handed over (all_logits)
  int64_t last_step = 0;        // number of the last step that it was part of
  int32_t data_rank = -1;       // -1: waits for admission
  std::vector<int32_t> blocks;  // pages of the cache

  // Guesses with the MTP layer (docs/speculative.md).
  bool drafts = false;         // still takes part in it
  bool draft_awaited = false;  // a pass that guesses its next token but one is under way
  int32_t draft = -1;          // the guess of what follows `tokens`; -1: none
  int64_t drafted = 0;         // positions that the passes leave in the cache of the MTP layer

  FinishReason finish = FinishReason::kNone;

  int64_t n_generated() const {
    return static_cast<int64_t>(tokens.size() - request.prompt.size());
  }
  // Known positions that no step was planned for yet; below 0 while a guess is verified.
  int64_t missing() const { return static_cast<int64_t>(tokens.size()) - computed; }
};

}  // namespace glm
