// Joins token bytes to whole characters for streaming. SPDX-License-Identifier: MIT
#include "io/tokenizer.h"
#include "io/unicode.h"

namespace glm {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes from `at` to the end could still become a character when more bytes follow.
bool may_continue(std::string_view text, size_t at) {
  std::string candidate(text.substr(at));
  if (candidate.size() >= 4) return false;
  const auto lead = static_cast<uint8_t>(candidate[0]);
  const size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || candidate.size() >= wanted) return false;
  // The narrowest and the widest second byte decide between overlong, surrogate and valid.
  for (const char second : {'\x80', '\x90', '\xA0', '\xBF'}) {
    std::string completed = candidate;
    if (completed.size() == 1) completed += second;
    while (completed.size() < wanted) completed += '\x80';
    if (utf8_length(completed, 0) == wanted) return true;
  }
  return false;
}

// Bytes of the longest beginning of a character at `at`: replaced together by one U+FFFD.
size_t broken_length(std::string_view text, size_t at) {
  size_t length = 1;
  while (at + length < text.size() && may_continue(text.substr(at, length + 1), 0)) ++length;
  return length;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  size_t at = 0;
  while (at < pending_.size()) {
    const size_t length = utf8_length(pending_, at);
    if (length > 0) {
      out.append(pending_, at, length);
      at += length;
    } else if (may_continue(pending_, at)) {
      break;
    } else {
      out += kReplacement;
      at += broken_length(pending_, at);
    }
  }
  pending_.erase(0, at);
  return out;
}

std::string Utf8Stream::finish() {
  const bool incomplete = !pending_.empty();
  pending_.clear();
  return incomplete ? std::string(kReplacement) : std::string();
}

}  // namespace glm
