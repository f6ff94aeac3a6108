// SPDX-License-Identifier: MIT
#include "apps/infer_tools.h"

#include <algorithm>

#include "io/tool_calls.h"

namespace glm {
namespace {

constexpr int64_t kLongestTools = int64_t{16} << 20;
// "<think>" and a line break, in tokens as small as bytes.
constexpr size_t kLastTokens = 12;

}  // namespace

OrderedJson read_tools(const std::optional<std::string>& path) {
  if (!path) return nullptr;
  return parse_tools(read_file(*path, kLongestTools, ExitCode::kUsage), *path);
}

bool opens_thinking(const Tokenizer& tokenizer, std::span<const int32_t> prompt) {
  std::string text = tokenizer.decode(prompt.last(std::min(prompt.size(), kLastTokens)), false);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text.ends_with("<think>");
}

}  // namespace glm
