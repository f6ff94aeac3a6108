// The command line of glm_eval. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "apps/infer_options.h"

namespace glm {

struct EvalOptions {
  enum class What { kPerplexity, kAnswers, kCompare } what = What::kPerplexity;
  InferOptions job;                 // the model, ranks and machine; of compare the first model
  std::string other;                // the second
  std::optional<std::string> text;  // a file; absent: the sample of eval_sample.h
  std::string questions;            // a file
  int64_t window = 512;
  int64_t stride = 256;
  std::optional<int64_t> limit;  // tokens or questions
};

struct EvalCommand : Launch {
  EvalOptions options;
};

EvalCommand parse_eval_command(int argc, char** argv);

}  // namespace glm
