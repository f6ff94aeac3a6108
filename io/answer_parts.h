// What an answer consists of: reasoning between think tags, the answer proper, tool calls. Taken
// apart while it grows, for display, and as a whole. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/tool_calls.h"

namespace glm {

class AnswerSplitter {
 public:
  // `inside_reasoning`: the prompt has opened the think tag (GLM-4.7 and later). `with_calls`: from
  // the first <tool_call> on the text is kept apart.
  AnswerSplitter(bool inside_reasoning, bool with_calls);

  // What has become certain; tags and the line breaks around them are left out.
  struct Piece {
    std::string reasoning, content;
  };
  Piece push(std::string_view text);
  Piece finish();

  // All so far.
  const std::string& reasoning() const { return reasoning_; }
  const std::string& content() const { return content_; }
  const std::string& calls() const { return calls_; }  // from the first <tool_call> on

 private:
  enum class State { kBegin, kReasoning, kContent, kCalls };

  bool advance(bool last, Piece& piece);
  bool leave_begin(bool last);
  std::string take_until(std::string_view tag, bool last);
  static void emit(std::string_view text, std::string& all, std::string& piece);

  State state_;
  bool with_calls_;
  std::string held_;
  std::string reasoning_, content_, calls_;
};

struct AnswerParts {
  std::string reasoning, content;
  std::vector<ToolCall> calls;
  bool malformed_call = false;  // it is part of the content
};

// `tools`: null when none were offered; then nothing counts as a call. `complete`: the model ended
// the answer.
AnswerParts answer_parts(const AnswerSplitter& splitter, const OrderedJson& tools, bool complete);
AnswerParts parse_answer(std::string_view text,
                         bool inside_reasoning,
                         const OrderedJson& tools,
                         bool complete);

// {"role": "assistant", "content": ...} with "reasoning_content" and "tool_calls" where there are
// some.
OrderedJson message_json(const AnswerParts& parts);

}  // namespace glm
