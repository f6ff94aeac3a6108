// SPDX-License-Identifier: MIT
#include "io/answer_parts.h"

#include <algorithm>

namespace glm {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kEndThink = "</think>";
constexpr std::string_view kCall = "<tool_call>";
// Longest end of `text` that may be the beginning of `tag`.
size_t partial(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n)
    if (text.ends_with(tag.substr(0, n))) return n;
  return 0;
}

void trim_end(std::string& text) {
  const size_t last = text.find_last_not_of(kJsonBlanks);
  text.erase(last == std::string::npos ? 0 : last + 1);
}

}  // namespace

AnswerSplitter::AnswerSplitter(bool inside_reasoning, bool with_calls)
    : state_(inside_reasoning ? State::kReasoning : State::kBegin), with_calls_(with_calls) {}

AnswerSplitter::Piece AnswerSplitter::push(std::string_view text) {
  held_ += text;
  Piece piece;
  while (advance(false, piece)) {
  }
  return piece;
}

AnswerSplitter::Piece AnswerSplitter::finish() {
  Piece piece;
  while (advance(true, piece)) {
  }
  return piece;
}

// One move; false when more text is needed.
bool AnswerSplitter::advance(bool last, Piece& piece) {
  if (state_ == State::kBegin) return leave_begin(last);
  if (state_ == State::kReasoning) {
    const bool found = held_.find(kEndThink) != std::string::npos;
    emit(take_until(kEndThink, last), reasoning_, piece.reasoning);
    if (found) state_ = State::kContent;
    return found;
  }
  if (state_ == State::kContent && with_calls_) {
    const bool found = held_.find(kCall) != std::string::npos;
    emit(take_until(kCall, last), content_, piece.content);
    if (found) state_ = State::kCalls;
    if (found) calls_ = kCall;
    return found;
  }
  if (state_ == State::kCalls)
    calls_ += held_;
  else
    emit(held_, content_, piece.content);
  held_.clear();
  return false;
}

// The think tag may come first, behind blanks.
bool AnswerSplitter::leave_begin(bool last) {
  const size_t begin = std::min(held_.find_first_not_of(kJsonBlanks), held_.size());
  const std::string_view rest = std::string_view(held_).substr(begin);
  if (rest.starts_with(kThink)) {
    held_.erase(0, begin + kThink.size());
    state_ = State::kReasoning;
    return true;
  }
  if (!last && kThink.starts_with(rest)) return false;
  state_ = State::kContent;
  return true;
}

// Takes what is certain to stand before `tag`, and the tag itself.
std::string AnswerSplitter::take_until(std::string_view tag, bool last) {
  const size_t found = held_.find(tag);
  const bool whole = found != std::string::npos;
  const size_t end = whole ? found : held_.size() - (last ? 0 : partial(held_, tag));
  std::string out = held_.substr(0, end);
  held_.erase(0, whole ? end + tag.size() : end);
  return out;
}

// Line breaks before the first character belong to the tags.
void AnswerSplitter::emit(std::string_view text, std::string& all, std::string& piece) {
  if (all.empty()) text.remove_prefix(std::min(text.find_first_not_of("\r\n"), text.size()));
  all += text;
  piece += text;
}

AnswerParts answer_parts(const AnswerSplitter& splitter, const OrderedJson& tools, bool complete) {
  AnswerParts parts;
  parts.reasoning = splitter.reasoning();
  trim_end(parts.reasoning);
  parts.content = splitter.content() + splitter.calls();
  if (!tools.empty()) {
    CallsInText found = parse_tool_calls(parts.content, tools, complete);
    parts.content = std::move(found.text);
    parts.calls = std::move(found.calls);
    parts.malformed_call = found.malformed;
  }
  trim_end(parts.content);
  return parts;
}

AnswerParts parse_answer(std::string_view text,
                         bool inside_reasoning,
                         const OrderedJson& tools,
                         bool complete) {
  AnswerSplitter splitter(inside_reasoning, !tools.empty());
  splitter.push(text);
  splitter.finish();
  return answer_parts(splitter, tools, complete);
}

OrderedJson message_json(const AnswerParts& parts) {
  OrderedJson message = {{"role", "assistant"}, {"content", parts.content}};
  if (!parts.reasoning.empty()) message["reasoning_content"] = parts.reasoning;
  if (!parts.calls.empty()) message["tool_calls"] = tool_calls_json(parts.calls);
  return message;
}

}  // namespace glm
