// A request and the limits that tests of the scheduler share. SPDX-License-Identifier: MIT
#pragma once

#include "core/engine/scheduler.h"

namespace glm {

inline Request request(int64_t prompt, int64_t max_tokens) {
  Request r;
  r.prompt.assign(static_cast<size_t>(prompt), 5);
  r.max_tokens = max_tokens;
  return r;
}

inline StepLimits limits() {
  StepLimits l;
  l.max_rows = 20;
  l.max_sequences = 3;
  l.max_logits = 8;
  l.max_context = 100;
  return l;
}

}  // namespace glm
