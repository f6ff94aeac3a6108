// The lexer of chat templates. SPDX-License-Identifier: MIT
#include "io/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "core/base/check.h"
#include "io/unicode.h"

namespace glm::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_name_char(char c) { return is_name_start(c) || is_digit(c); }

// Line ends become "\n", and one at the very end is dropped.
std::string normalized(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += text[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

std::string_view without_trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!is_python_space(utf8_decode(text, begin, end - begin))) break;
    end = begin;
  }
  return text.substr(0, end);
}

class Lexer {
 public:
  Lexer(std::string_view text, const std::string& source)
      : source_(source), text_(normalized(text)) {}

  std::vector<Token> run();

 private:
  [[noreturn]] void error(std::string_view message) const {
    fail(ExitCode::kModelFile, "{}:{}: {}", source_, line_, escaped(message));
  }
  bool at(std::string_view what) const { return text_.compare(at_, what.size(), what) == 0; }
  void emit(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  // Moves on to `end`, counting lines.
  void advance_to(size_t end);
  void skip_space();
  size_t next_tag() const;
  void lex_text(size_t end, char sign, bool may_strip_left);
  void lex_comment();
  bool lex_raw();
  void end_tag(char sign, bool trims);
  void lex_expression(std::string_view end_mark, TokenKind end_kind);
  bool lex_end(std::string_view end_mark, TokenKind end_kind);
  void lex_string();
  void append_escape(std::string& value, size_t& i, size_t end) const;
  void lex_number();
  void lex_operator();

  std::string source_;
  std::string text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the tag before ended with a line end
  std::vector<Token> tokens_;
  std::string brackets_;
};

void Lexer::advance_to(size_t end) {
  line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                       text_.begin() + static_cast<std::ptrdiff_t>(end),
                                       '\n'));
  at_ = end;
}

void Lexer::skip_space() {
  size_t end = at_;
  while (end < text_.size()) {
    const size_t length = utf8_length(text_, end);
    if (!is_python_space(utf8_decode(text_, end, length))) break;
    end += length;
  }
  advance_to(end);
}

size_t Lexer::next_tag() const {
  for (size_t i = text_.find('{', at_); i != std::string::npos; i = text_.find('{', i + 1))
    if (i + 1 < text_.size() && std::string_view("{%#").find(text_[i + 1]) != std::string::npos)
      return i;
  return text_.size();
}

// Text up to the tag at `end`, with white space cut as the tag's sign says.
void Lexer::lex_text(size_t end, char sign, bool may_strip_left) {
  std::string_view data = std::string_view(text_).substr(at_, end - at_);
  if (sign == '-') {
    data = without_trailing_space(data);
  } else if (sign != '+' && may_strip_left) {
    const size_t line_begin = data.rfind('\n') + 1;
    if ((line_begin > 0 || line_starting_) &&
        without_trailing_space(data.substr(line_begin)).empty())
      data = data.substr(0, line_begin);
  }
  if (!data.empty()) emit(TokenKind::kText, std::string(data));
  advance_to(end);
}

// Behind the closing mark of a tag: "-" eats white space, else one line end goes where the kind of
// tag trims.
void Lexer::end_tag(char sign, bool trims) {
  const size_t begin = at_;
  if (sign == '-') {
    skip_space();
  } else if (sign != '+' && trims && at("\n")) {
    advance_to(at_ + 1);
  }
  line_starting_ = at_ > begin && text_[at_ - 1] == '\n';
}

void Lexer::lex_comment() {
  const size_t begin = at_;
  const size_t end = text_.find("#}", begin);
  if (end == std::string::npos) error("a comment is not closed");
  const char sign = end > begin ? text_[end - 1] : ' ';
  advance_to(end + 2);
  end_tag(sign, true);
}

// "{% raw %} ... {% endraw %}" at the position; false when another tag stands there.
bool Lexer::lex_raw() {
  const size_t begin = at_;
  const int begin_line = line_;
  const auto tag = [&](std::string_view name, char& left, char& right) {
    advance_to(at_ + 2);
    left = at("-") || at("+") ? text_[at_] : ' ';
    if (left != ' ') advance_to(at_ + 1);
    skip_space();
    if (!at(name)) return false;
    advance_to(at_ + name.size());
    skip_space();
    right = at("-") || at("+") ? text_[at_] : ' ';
    if (right != ' ') advance_to(at_ + 1);
    if (!at("%}")) return false;
    advance_to(at_ + 2);
    return true;
  };
  char left = ' ';
  char right = ' ';
  if (!tag("raw", left, right) || right == '+') {
    at_ = begin;
    line_ = begin_line;
    return false;
  }
  end_tag(right, false);
  const size_t content = at_;
  const int content_line = line_;
  for (size_t end = text_.find("{%", content);; end = text_.find("{%", end + 1)) {
    if (end == std::string::npos) error("a raw block is not closed");
    at_ = content;
    line_ = content_line;
    advance_to(end);
    if (!tag("endraw", left, right)) continue;
    const size_t behind = at_;
    at_ = content;
    line_ = content_line;
    lex_text(end, left, true);
    advance_to(behind);
    end_tag(right, true);
    return true;
  }
}

bool Lexer::lex_end(std::string_view end_mark, TokenKind end_kind) {
  if (!brackets_.empty()) return false;
  const bool block = end_kind == TokenKind::kBlockEnd;
  char sign = ' ';
  if ((at("-") || (block && at("+"))) && text_.compare(at_ + 1, 2, end_mark) == 0) {
    sign = text_[at_];
    advance_to(at_ + 1);
  } else if (!at(end_mark)) {
    return false;
  }
  emit(end_kind, "");
  advance_to(at_ + 2);
  end_tag(sign, block);
  return true;
}

void Lexer::append_escape(std::string& value, size_t& i, size_t end) const {
  static constexpr std::string_view kNames = "nrtabfv\\'\"\n";
  static constexpr std::string_view kValues("\n\r\t\a\b\f\v\\'\"", 10);
  const char c = text_[i];
  const size_t known = kNames.find(c);
  if (known != std::string::npos) {
    if (c != '\n') value += kValues[known];
    return;
  }
  int base = 16;
  size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  size_t first = i + 1;
  if (c >= '0' && c <= '7') {
    base = 8;
    digits = 1;
    first = i;
    while (digits < 3 && first + digits < end && text_[first + digits] >= '0' &&
           text_[first + digits] <= '7')
      ++digits;
  }
  if (c == 'N') error("an unsupported escape \\N in a string");
  if (digits == 0) {  // not an escape: both stay
    value += '\\';
    value += c;
    return;
  }
  const std::string spelled = text_.substr(first, std::min(digits, end - first));
  size_t used = 0;
  for (const char digit : spelled) used += std::isxdigit(static_cast<unsigned char>(digit)) != 0;
  if (spelled.size() != digits || used != digits) error("a broken escape in a string");
  const long codepoint = std::stol(spelled, nullptr, base);
  if (codepoint > 0x10FFFF || (codepoint >= 0xD800 && codepoint <= 0xDFFF))
    error("an escape in a string is no character");
  append_utf8(value, static_cast<int32_t>(codepoint));
  i = first + digits - 1;
}

void Lexer::lex_string() {
  const char quote = text_[at_];
  size_t end = at_ + 1;
  while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
  if (end >= text_.size()) error("a string is not closed");
  std::string value;
  for (size_t i = at_ + 1; i < end; ++i) {
    if (text_[i] == '\\') {
      ++i;
      append_escape(value, i, end);
    } else {
      value += text_[i];
    }
  }
  emit(TokenKind::kString, std::move(value));
  advance_to(end + 1);
}

void Lexer::lex_number() {
  std::string digits;
  size_t end = at_;
  const auto take_digits = [&] {
    while (end < text_.size() && (is_digit(text_[end]) || (text_[end] == '_' && end > at_))) {
      if (text_[end] != '_') digits += text_[end];
      ++end;
    }
  };
  take_digits();
  bool real = false;
  if (end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1])) {
    real = true;
    digits += text_[end++];
    take_digits();
  }
  if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
    const size_t sign = end + 1 < text_.size() && (text_[end + 1] == '+' || text_[end + 1] == '-');
    if (end + 1 + sign < text_.size() && is_digit(text_[end + 1 + sign])) {
      real = true;
      digits += text_.substr(end, 1 + sign);
      end += 1 + sign;
      take_digits();
    }
  }
  if (end < text_.size() && is_name_start(text_[end])) error("an unsupported form of number");
  if (!real && digits.size() > 1 && digits[0] == '0') error("a number begins with 0");
  emit(real ? TokenKind::kFloat : TokenKind::kInteger, std::move(digits));
  advance_to(end);
}

void Lexer::lex_operator() {
  static constexpr std::array<std::string_view, 26> kOperators = {
      "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[",
      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
  for (const std::string_view name : kOperators) {
    if (!at(name)) continue;
    const char c = name[0];
    if (c == '(' || c == '[' || c == '{') brackets_ += c;
    if (c == ')' || c == ']' || c == '}') {
      const char open = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (brackets_.empty() || brackets_.back() != open) error(fmt::format("unexpected '{}'", c));
      brackets_.pop_back();
    }
    emit(TokenKind::kOperator, std::string(name));
    advance_to(at_ + name.size());
    return;
  }
  error(fmt::format("unexpected character '{}'", text_.substr(at_, 1)));
}

void Lexer::lex_expression(std::string_view end_mark, TokenKind end_kind) {
  brackets_.clear();
  while (true) {
    skip_space();
    if (at_ >= text_.size()) error("a tag is not closed");
    if (lex_end(end_mark, end_kind)) return;
    const char c = text_[at_];
    if (c == '\'' || c == '"') {
      lex_string();
    } else if (is_digit(c)) {
      lex_number();
    } else if (is_name_start(c)) {
      size_t end = at_;
      while (end < text_.size() && is_name_char(text_[end])) ++end;
      emit(TokenKind::kName, text_.substr(at_, end - at_));
      at_ = end;
    } else {
      lex_operator();
    }
  }
}

std::vector<Token> Lexer::run() {
  if (!is_utf8(text_)) fail(ExitCode::kModelFile, "{}: the template is not UTF-8", source_);
  while (at_ < text_.size()) {
    const size_t tag = next_tag();
    if (tag == text_.size()) {
      emit(TokenKind::kText, text_.substr(at_));
      break;
    }
    const char kind = text_[tag + 1];
    const char next = tag + 2 < text_.size() ? text_[tag + 2] : ' ';
    const char sign = next == '-' || next == '+' ? next : ' ';
    lex_text(tag, sign, kind != '{');
    if (kind == '%' && lex_raw()) continue;
    if (kind != '#') emit(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    advance_to(tag + (sign == ' ' ? 2 : 3));
    line_starting_ = false;
    if (kind == '#') {
      lex_comment();
    } else if (kind == '%') {
      lex_expression("%}", TokenKind::kBlockEnd);
    } else {
      lex_expression("}}", TokenKind::kVariableEnd);
    }
  }
  emit(TokenKind::kEnd, "");
  return std::move(tokens_);
}

}  // namespace

std::vector<Token> tokenize(std::string_view text, const std::string& source) {
  return Lexer(text, source).run();
}

}  // namespace glm::jinja
