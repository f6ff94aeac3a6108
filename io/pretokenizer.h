// Splitting text into the pieces that are merged on their own: the pre_tokenizer of tokenizer.json,
// run in PCRE2 with limits on work, so that no pattern can hang. SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace glm {

class Pretokenizer {
 public:
  // `spec`: the pre_tokenizer object. Throws Error(kModelFile) naming `source` and the field:
  // unsupported kinds and behaviours, patterns that PCRE2 refuses or reads differently.
  Pretokenizer(const Json& spec, const std::string& source);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  // Pieces of `text` in order; together they are `text`. Each run of bytes that are not UTF-8 is a
  // piece of its own, and the text around it is split as if it ended there. Throws
  // Error(kModelFile) when a pattern needs more than the limits of work.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Pattern;
  void add(const Json& spec, const std::string& field);
  void add_split(const Json& spec, const std::string& field);

  std::string source_;
  bool byte_level_ = false;
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace glm
