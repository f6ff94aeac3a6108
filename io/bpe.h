// Byte-pair encoding of one piece of text: the model of tokenizer.json, on raw bytes instead of the
// printable alphabet in which the file spells them. SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/json.h"

namespace glm {

class Bpe {
 public:
  // `model`: the model object. Throws Error(kModelFile) naming `source` and the field: a kind other
  // than byte-level BPE, ids that are no integers, out of range or double, bytes without a token,
  // merges of unknown tokens.
  Bpe(const Json& model, const std::string& source);

  // Appends the ids of `piece`. O(n log n).
  void encode(std::string_view piece, std::vector<int32_t>& out) const;

  // Bytes by id; absent where the vocabulary has a gap.
  const std::unordered_map<int32_t, std::string_view>& tokens() const { return tokens_; }
  const int32_t* find(std::string_view bytes) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  void read_vocab(const Json& vocab);
  void read_merges(const Json& merges);
  void add_merge(const Json& merge, size_t index);
  const Merge* merge_of(int32_t left, int32_t right) const;
  int32_t spelled_id(std::string_view spelling, size_t index) const;

  std::string source_;
  bool ignore_merges_ = false;
  std::unordered_map<std::string, int32_t> vocab_;     // bytes to id
  std::unordered_map<std::string, int32_t> spelling_;  // as written, for merges; empty afterwards
  std::unordered_map<int32_t, std::string_view> tokens_;
  std::array<int32_t, 256> byte_ids_{};
  std::unordered_map<uint64_t, Merge> merges_;
};

// Bytes in the printable alphabet of tokenizer.json.
std::string byte_level_spelling(std::string_view bytes);

// Token ids above this are refused: the tables would take the memory that a file asks for.
inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;

// An id of tokenizer.json; throws Error(kModelFile) "source: field: ...".
int32_t token_id_of(const Json& value, const std::string& field);

}  // namespace glm
