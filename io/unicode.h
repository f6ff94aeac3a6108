// UTF-8 and the few Unicode properties that tokenizers and templates need: white space as Python
// and Oniguruma see it, case mapping, printable characters, normalisation form C (utf8proc).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace glm {

// Length of the valid character at `at` (1..4), or 0 where the bytes are no character: overlong
// forms, surrogates, values over U+10FFFF and cut sequences are not.
size_t utf8_length(std::string_view text, size_t at);
bool is_utf8(std::string_view text);
// The character at `at`, whose length is known to be `length`.
int32_t utf8_decode(std::string_view text, size_t at, size_t length);
void append_utf8(std::string& out, int32_t codepoint);

// str.isspace() of Python.
bool is_python_space(int32_t codepoint);
// str.isprintable() of Python.
bool is_printable(int32_t codepoint);
bool is_decimal_digit(int32_t codepoint);
bool is_letter(int32_t codepoint);

enum class LetterCase { kLower, kUpper, kTitle };
// Full case mapping without context, appended to `out`; covers the one-to-many mappings of Latin.
void append_cased(std::string& out, int32_t codepoint, LetterCase letter_case);

// Normalisation form C of valid UTF-8, in O(n log n) whatever the order of combining marks.
std::string to_nfc(std::string_view text);

}  // namespace glm
