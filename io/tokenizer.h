// Byte-level BPE as tokenizer.json of Hugging Face describes it (the GLM-4 and later, Llama 3 and
// Qwen 3 families). Regular expressions run in PCRE2 with match limits; merging is O(n log n).
// Nothing here knows a model. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/text.h"

namespace glm {

class Tokenizer {
 public:
  // `json`: the bytes of tokenizer.json. Throws Error(kModelFile) naming `source` and the field at
  // fault: unsupported model, normalizer, pre-tokenizer or post-processor, merges of unknown
  // tokens, duplicate ids, ids out of range.
  Tokenizer(std::string_view json, const std::string& source);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ids of `text`. With `control_tokens` added tokens are recognised (leftmost, longest), else the
  // text is ordinary.
  std::vector<int32_t> encode(std::string_view text, bool control_tokens) const;
  // Ids of a rendered conversation: control tokens by provenance (text.h). Runs of ordinary text
  // are joined before they are split, so that ids equal those of the whole text wherever no control
  // token is at stake.
  std::vector<int32_t> encode(const Text& text) const;
  // What the post-processor puts around a raw prompt ("[gMASK] <sop>" of glm-4-9b-chat-hf), as ids;
  // often empty.
  std::vector<int32_t> prefix() const;

  // Bytes of the ids; ids outside the vocabulary give nothing. With `skip_special` tokens flagged
  // special are left out.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;
  // Bytes of one token, which may be part of a character.
  std::string_view token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;
  std::optional<int32_t> token_id(
      std::string_view token) const;  // added tokens and vocabulary pieces (as bytes)
  int32_t vocab_size() const;         // largest id + 1

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Turns a stream of token bytes into a stream of whole UTF-8 characters.
class Utf8Stream {
 public:
  // Returns the bytes that are complete by now; an incomplete character waits for the next call.
  // Bytes that cannot begin or continue a character become U+FFFD.
  std::string push(std::string_view bytes);
  // What is left, with U+FFFD for an incomplete character.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace glm
