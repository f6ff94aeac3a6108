// SPDX-License-Identifier: MIT
#include "apps/chat_output.h"

#include <cerrno>
#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

#include "apps/launch.h"
#include "core/base/check.h"
#include "io/unicode.h"

namespace glm {
namespace {

constexpr auto kPause = std::chrono::milliseconds(200);
constexpr const char* kDim = "\x1b[2m";
constexpr const char* kPlain = "\x1b[0m";
constexpr const char* kClearLine = "\r\x1b[K";

void write_terminal(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno != EINTR && errno != EAGAIN) return;  // the terminal is gone; so is stdin
    if (n > 0) text.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

std::string without_controls(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    const int32_t code = length > 0 ? utf8_decode(text, at, length) : 0;
    const bool control =
        (code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7F && code < 0xA0);
    if (control)
      append_utf8(out, 0xFFFD);
    else
      out += text.substr(at, length);
    at += length > 0 ? length : 1;
  }
  return out;
}

ChatOutput::ChatOutput(const ChatTerminal* terminal, bool show_thinking, bool silent)
    : terminal_(terminal), show_thinking_(show_thinking), silent_(silent) {}

void ChatOutput::write(std::string_view text) {
  if (on_terminal())
    write_terminal(terminal_->fd(), text);
  else
    write_out(std::string(text));
}

void ChatOutput::begin() {
  state_ = State::kNothing;
  n_thought_ = 0;
}

void ChatOutput::show(const AnswerSplitter::Piece& piece, int64_t n_tokens) {
  if (silent_) return;
  if (!piece.reasoning.empty()) show_reasoning(piece.reasoning, n_tokens);
  if (piece.content.empty()) return;
  leave_reasoning();
  state_ = State::kContent;
  write(on_terminal() ? without_controls(piece.content) : piece.content);
}

void ChatOutput::show_reasoning(std::string_view text, int64_t n_tokens) {
  n_thought_ = n_tokens;
  const bool first = state_ == State::kNothing;
  state_ = State::kReasoning;
  if (show_thinking_) {
    if (first) write(on_terminal() ? kDim : "<think>\n");
    write(on_terminal() ? without_controls(text) : std::string(text));
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (!on_terminal() || (!first && now - drawn_ < kPause)) return;
  drawn_ = now;
  write(fmt::format("{}(thinking: {} tokens)", kClearLine, n_tokens));
}

void ChatOutput::leave_reasoning() {
  if (state_ != State::kReasoning) return;
  state_ = State::kNothing;
  if (show_thinking_)
    write(on_terminal() ? fmt::format("{}\n\n", kPlain) : "\n</think>\n");
  else if (on_terminal())
    write(fmt::format("{}(thought for {} tokens)\n", kClearLine, n_thought_));
}

void ChatOutput::end(const AnswerParts& parts) {
  if (silent_) return;
  leave_reasoning();
  std::string rest = state_ == State::kContent || parts.calls.empty() ? "\n" : "";
  for (const ToolCall& call : parts.calls)
    rest += tool_call_json(call).dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
  write(on_terminal() ? without_controls(rest) : rest);
}

void ChatOutput::say(const std::string& text) {
  if (terminal_ != nullptr) {
    write_terminal(terminal_->fd(), text + "\n");
    return;
  }
  std::string lines = "chat: ";
  for (const char c : text) lines += c == '\n' ? "\nchat: " : std::string(1, c);
  std::fputs((lines + "\n").c_str(), stderr);
}

}  // namespace glm
