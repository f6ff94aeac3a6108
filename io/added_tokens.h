// The added tokens of tokenizer.json: finding them in text, leftmost and longest first.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/json.h"

namespace glm {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;  // looked for after the text was normalised, in what the others left
};

class AddedTokens {
 public:
  // `list`: the added_tokens array, or null. Throws Error(kModelFile) naming `source` and entry:
  // empty or doubled content, doubled ids, lstrip, rstrip or single_word.
  AddedTokens(const Json& list, const std::string& source);

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(std::string_view content) const;

  struct Match {
    size_t begin = 0;
    const AddedToken* token = nullptr;
  };
  using Filter = std::function<bool(const AddedToken&)>;
  // The first place in [begin, end) of `text` where tokens with this `normalized` that pass the
  // filter stand, and the longest of them; token is null where there is none.
  Match next(std::string_view text, size_t begin, bool normalized, const Filter& filter) const;

 private:
  const AddedToken* longest_at(std::string_view text,
                               size_t at,
                               bool normalized,
                               const Filter& filter) const;

  std::vector<AddedToken> tokens_;
  // A trie over the contents: (node, byte) to node; root is 0.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::unordered_map<uint32_t, size_t> ends_;  // node to index of its token
};

}  // namespace glm
