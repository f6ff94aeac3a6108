// Text with provenance: which bytes were written by a template (trusted) and which were inserted by
// a user, a tool or the model. The tokenizer recognises control tokens only where the provenance
// allows it (docs/decisions). SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace glm {

// Who wrote a run of bytes.
enum class Origin : uint8_t {
  kTemplate,   // literals of the chat template: every added token is recognised
  kUser,       // user text: only "/nothink"
  kAssistant,  // earlier answers of the model: "<think>", "</think>" and "/nothink" as well
  kPlain,      // system prompts, tools, tool results: none
};

struct TextRun {
  std::string text;
  Origin origin = Origin::kTemplate;
};

// Runs in order; neighbours differ in origin.
using Text = std::vector<TextRun>;

}  // namespace glm
