// Tools that a model is offered on the command line, and what tells where its answer begins.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "io/json.h"
#include "io/tokenizer.h"

namespace glm {

// The tools of a file; null without one. Throws Error(kUsage).
OrderedJson read_tools(const std::optional<std::string>& path);

// The prompt ends inside the reasoning, so that the answer has no opening tag.
bool opens_thinking(const Tokenizer& tokenizer, std::span<const int32_t> prompt);

}  // namespace glm
