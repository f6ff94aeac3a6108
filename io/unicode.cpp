// UTF-8 decoding, character properties and normalisation form C. The tables are utf8proc's.
// SPDX-License-Identifier: MIT
#include "io/unicode.h"

#include <algorithm>
#include <array>
#include <vector>

#include <utf8proc.h>

#include "core/base/check.h"

namespace glm {
namespace {

uint8_t byte_at(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

bool is_continuation(std::string_view text, size_t at) {
  return at < text.size() && (byte_at(text, at) & 0xC0) == 0x80;
}

struct Expansion {
  int32_t codepoint;
  std::array<int32_t, 3> mapped;  // 0 ends it
};

// SpecialCasing.txt, the unconditional mappings of Latin letters to capitals.
constexpr std::array<Expansion, 11> kCapitals = {{{0xDF, {'S', 'S', 0}},
                                                  {0x149, {0x2BC, 'N', 0}},
                                                  {0x1F0, {'J', 0x30C, 0}},
                                                  {0x1E9E, {0x1E9E, 0, 0}},
                                                  {0xFB00, {'F', 'F', 0}},
                                                  {0xFB01, {'F', 'I', 0}},
                                                  {0xFB02, {'F', 'L', 0}},
                                                  {0xFB03, {'F', 'F', 'I'}},
                                                  {0xFB04, {'F', 'F', 'L'}},
                                                  {0xFB05, {'S', 'T', 0}},
                                                  {0xFB06, {'S', 'T', 0}}}};

bool append_expansion(std::string& out, int32_t codepoint, LetterCase letter_case) {
  if (letter_case == LetterCase::kLower) {
    if (codepoint != 0x130) return false;
    append_utf8(out, 'i');
    append_utf8(out, 0x307);
    return true;
  }
  for (const Expansion& entry : kCapitals) {
    if (entry.codepoint != codepoint) continue;
    for (size_t i = 0; i < entry.mapped.size() && entry.mapped[i] != 0; ++i) {
      const bool small = letter_case == LetterCase::kTitle && i > 0;
      append_utf8(out, small ? utf8proc_tolower(entry.mapped[i]) : entry.mapped[i]);
    }
    return true;
  }
  return false;
}

int combining_class(int32_t codepoint) {
  return static_cast<int>(utf8proc_get_property(codepoint)->combining_class);
}

// Canonical decomposition of one character, appended.
void decompose(int32_t codepoint, std::vector<int32_t>& out) {
  std::array<int32_t, 32> buffer{};
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(codepoint,
                              buffer.data(),
                              buffer.size(),
                              static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE),
                              nullptr);
  GLM_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(buffer.size()),
            "decomposition of U+{:04X} failed",
            codepoint);
  out.insert(out.end(), buffer.begin(), buffer.begin() + count);
}

// Sorts each run of combining marks by class. utf8proc's own sort is quadratic in the run.
void sort_marks(std::vector<int32_t>& text) {
  size_t begin = 0;
  while (begin < text.size()) {
    if (combining_class(text[begin]) == 0) {
      ++begin;
      continue;
    }
    size_t end = begin;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(begin),
                     text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

}  // namespace

size_t utf8_length(std::string_view text, size_t at) {
  const uint8_t lead = byte_at(text, at);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4 || !is_continuation(text, at + 1)) return 0;
  if (lead < 0xE0) return 2;
  const uint8_t second = byte_at(text, at + 1);
  if (lead == 0xE0 && second < 0xA0) return 0;
  if (lead == 0xED && second > 0x9F) return 0;
  if (!is_continuation(text, at + 2)) return 0;
  if (lead < 0xF0) return 3;
  if (lead == 0xF0 && second < 0x90) return 0;
  if (lead == 0xF4 && second > 0x8F) return 0;
  return is_continuation(text, at + 3) ? 4 : 0;
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

int32_t utf8_decode(std::string_view text, size_t at, size_t length) {
  if (length <= 1) return byte_at(text, at);
  int32_t codepoint = byte_at(text, at) & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) codepoint = codepoint << 6 | (byte_at(text, at + i) & 0x3F);
  return codepoint;
}

void append_utf8(std::string& out, int32_t codepoint) {
  const auto tail = [&](int shift) {
    out += static_cast<char>(0x80 | (codepoint >> shift & 0x3F));
  };
  if (codepoint < 0x80) {
    out += static_cast<char>(codepoint);
  } else if (codepoint < 0x800) {
    out += static_cast<char>(0xC0 | codepoint >> 6);
    tail(0);
  } else if (codepoint < 0x10000) {
    out += static_cast<char>(0xE0 | codepoint >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | codepoint >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

bool is_python_space(int32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_printable(int32_t codepoint) {
  if (codepoint == ' ') return true;
  switch (utf8proc_category(codepoint)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_decimal_digit(int32_t codepoint) {
  return utf8proc_category(codepoint) == UTF8PROC_CATEGORY_ND;
}

bool is_letter(int32_t codepoint) {
  const utf8proc_category_t category = utf8proc_category(codepoint);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

void append_cased(std::string& out, int32_t codepoint, LetterCase letter_case) {
  if (append_expansion(out, codepoint, letter_case)) return;
  if (letter_case == LetterCase::kLower) {
    append_utf8(out, utf8proc_tolower(codepoint));
  } else if (letter_case == LetterCase::kUpper) {
    append_utf8(out, utf8proc_toupper(codepoint));
  } else {
    append_utf8(out, utf8proc_totitle(codepoint));
  }
}

std::string to_nfc(std::string_view text) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; }))
    return std::string(text);
  std::vector<int32_t> codepoints;
  codepoints.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    GLM_CHECK(length > 0, "text to normalise is not UTF-8 at byte {}", at);
    decompose(utf8_decode(text, at, length), codepoints);
    at += length;
  }
  sort_marks(codepoints);
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(codepoints.data(),
                               static_cast<utf8proc_ssize_t>(codepoints.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  GLM_CHECK(count >= 0, "normalisation failed with {}", count);
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(out, codepoints[static_cast<size_t>(i)]);
  return out;
}

}  // namespace glm
