// Cutting a chat template into tokens, with the white space rules of Jinja (trim_blocks and
// lstrip_blocks on). SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace glm::jinja {

enum class TokenKind : unsigned char {
  kText,
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,  // text holds the value, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// Throws Error(kModelFile) "source:line: ...". The last token is kEnd.
std::vector<Token> tokenize(std::string_view text, const std::string& source);

}  // namespace glm::jinja
