// What a chat shows: answers as they grow, reasoning folded or not, tool calls as JSON, notes.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "apps/chat_terminal.h"
#include "io/answer_parts.h"

namespace glm {

class ChatOutput {
 public:
  // `terminal` may be null: then answers go to stdout and notes to stderr. With `silent` answers
  // are not shown at all.
  ChatOutput(const ChatTerminal* terminal, bool show_thinking, bool silent);

  void begin();
  void show(const AnswerSplitter::Piece& piece, int64_t n_tokens);
  // The rest of an answer: its calls, a line each.
  void end(const AnswerParts& parts);
  // One line or several that are no answer.
  void say(const std::string& text);

 private:
  enum class State { kNothing, kReasoning, kContent };

  bool on_terminal() const { return terminal_ != nullptr && terminal_->shows_stdout(); }
  void write(std::string_view text);
  void show_reasoning(std::string_view text, int64_t n_tokens);
  void leave_reasoning();

  const ChatTerminal* terminal_;
  bool show_thinking_;
  bool silent_;
  State state_ = State::kNothing;
  int64_t n_thought_ = 0;
  std::chrono::steady_clock::time_point drawn_;
};

// Text of a model that is safe on a terminal: control characters, which could move the cursor or
// worse, become U+FFFD.
std::string without_controls(std::string_view text);

}  // namespace glm
