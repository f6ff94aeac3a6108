// Added tokens: reading and searching. SPDX-License-Identifier: MIT
#include "io/added_tokens.h"

#include <unordered_set>

#include "io/bpe.h"

namespace glm {
namespace {

// Bounds the search, which tries every token at every byte.
constexpr size_t kMaxContentBytes = 256;

uint64_t edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

bool flag(const Json& entry, const char* key, const std::string& field) {
  return json_has(entry, key) && json_bool(entry, key, field, ExitCode::kModelFile);
}

}  // namespace

AddedTokens::AddedTokens(const Json& list, const std::string& source) {
  if (list.is_null()) return;
  if (!list.is_array()) fail(ExitCode::kModelFile, "{}: added_tokens: expected an array", source);
  std::unordered_set<int32_t> ids;
  tokens_.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string field = fmt::format("{}: added_tokens[{}]", source, i);
    const Json& entry = list[i];
    if (!entry.is_object() || !entry.contains("id"))
      fail(ExitCode::kModelFile, "{}: expected an object with id and content", field);
    AddedToken token;
    token.id = token_id_of(entry["id"], field);
    token.content = json_string(entry, "content", field, ExitCode::kModelFile);
    token.special = flag(entry, "special", field);
    token.normalized = flag(entry, "normalized", field);
    for (const char* key : {"lstrip", "rstrip", "single_word"})
      if (flag(entry, key, field)) fail(ExitCode::kModelFile, "{}: {} is unsupported", field, key);
    if (token.content.empty()) fail(ExitCode::kModelFile, "{}: content is empty", field);
    if (token.content.size() > kMaxContentBytes)
      fail(ExitCode::kModelFile, "{}: content of {} bytes", field, token.content.size());
    if (!ids.insert(token.id).second)
      fail(ExitCode::kModelFile, "{}: id {} is taken", field, token.id);
    uint32_t node = 0;
    for (const char byte : token.content)
      node =
          edges_.emplace(edge(node, byte), static_cast<uint32_t>(edges_.size() + 1)).first->second;
    if (!ends_.emplace(node, tokens_.size()).second)
      fail(ExitCode::kModelFile, "{}: {} stands twice", field, escaped(token.content, 40));
    tokens_.push_back(std::move(token));
  }
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  uint32_t node = 0;
  for (const char byte : content) {
    const auto found = edges_.find(edge(node, byte));
    if (found == edges_.end()) return nullptr;
    node = found->second;
  }
  const auto end = ends_.find(node);
  return end == ends_.end() ? nullptr : &tokens_[end->second];
}

const AddedToken* AddedTokens::longest_at(std::string_view text,
                                          size_t at,
                                          bool normalized,
                                          const Filter& filter) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto found = edges_.find(edge(node, text[i]));
    if (found == edges_.end()) break;
    node = found->second;
    const auto end = ends_.find(node);
    if (end == ends_.end()) continue;
    const AddedToken& token = tokens_[end->second];
    if (token.normalized == normalized && filter(token)) longest = &token;
  }
  return longest;
}

AddedTokens::Match AddedTokens::next(std::string_view text,
                                     size_t begin,
                                     bool normalized,
                                     const Filter& filter) const {
  for (size_t at = begin; at < text.size(); ++at)
    if (const AddedToken* token = longest_at(text, at, normalized, filter)) return {at, token};
  return {text.size(), nullptr};
}

}  // namespace glm
