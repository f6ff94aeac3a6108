// A run state as plain columns of numbers, which is what its file holds. SPDX-License-Identifier:
// MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/run_state.h"

namespace glm {

struct RunStateColumns {
  std::string model, settings;
  uint32_t finished = 0;
  std::vector<uint64_t> requests;
  std::vector<uint64_t> output;  // lines, bytes, checksum
  std::vector<int64_t> answer_requests, answer_bytes;
  std::vector<char> answer_lines;
  std::vector<int64_t> sequence_requests;
  std::vector<uint64_t> seeds;
  std::vector<int64_t> draws;
  std::vector<int32_t> tokens, drafts;
  std::vector<int64_t> guesses;
  std::vector<int32_t> guess_tokens;
  std::vector<double> guess_probabilities;

  // column(group or "", name, values) for each of them, in the order of the file.
  template <class Columns, class F>
  static void each(Columns& c, const F& column) {
    column("", "requests", c.requests);
    column("", "output", c.output);
    column("answers", "request", c.answer_requests);
    column("answers", "bytes", c.answer_bytes);
    column("answers", "lines", c.answer_lines);
    column("sequences", "request", c.sequence_requests);
    column("sequences", "seed", c.seeds);
    column("sequences", "draws", c.draws);
    column("sequences", "tokens", c.tokens);
    column("sequences", "draft", c.drafts);
    column("sequences", "guesses", c.guesses);
    column("sequences", "guess_tokens", c.guess_tokens);
    column("sequences", "guess_probabilities", c.guess_probabilities);
  }

  // CRC-32C of everything above.
  uint32_t checksum() const;
};

RunStateColumns columns_of(const RunState& state);
// Throws Error(kModelFile) that begins with `path` when the columns do not fit each other.
RunState state_of(const RunStateColumns& columns, const std::string& path);

}  // namespace glm
