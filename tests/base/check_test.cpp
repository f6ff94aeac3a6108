// Errors and their codes, text of strangers in messages, sizes of strangers.
// SPDX-License-Identifier: MIT
#include "core/base/check.h"

#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace glm {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(Check, AnErrorCarriesCodeAndMessage) {
  try {
    fail(ExitCode::kModelFile, "{}: tensor {} is {} bytes short", "a.h5", "head", 3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kModelFile);
    EXPECT_STREQ(error.what(), "a.h5: tensor head is 3 bytes short");
  }
}

TEST(Check, ABrokenInvariantNamesItself) {
  const int rows = 3;
  EXPECT_NO_THROW(GLM_CHECK(rows == 3, "{} rows", rows));
  try {
    GLM_CHECK(rows == 4, "{} rows", rows);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kRuntime);
    const std::string text = error.what();
    EXPECT_NE(text.find("rows == 4"), std::string::npos) << text;
    EXPECT_NE(text.find("check_test.cpp"), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with("3 rows")) << text;
  }
}

TEST(Escaped, PlainTextStaysAsItIs) {
  for (const char* text : {"",
                           "a b",
                           "layers.0.attention",
                           "Grüße, 世界 \xF0\x9F\x98\x80",
                           "\xC2\xA0",
                           "\xED\x9F\xBF",
                           "\xEE\x80\x80",
                           "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(escaped(text), text);
}

TEST(Escaped, ControlBytesAreSpelledOut) {
  EXPECT_EQ(escaped("a\nb\tc\r"), "a\\x0ab\\x09c\\x0d");
  EXPECT_EQ(escaped("\x1b[31m\x7f"), "\\x1b[31m\\x7f");
  EXPECT_EQ(escaped(std::string_view("\0x", 2)), "\\x00x");
  EXPECT_EQ(escaped("\xC2\x80\xC2\x9B\xC2\x9F"), "\\xc2\\x80\\xc2\\x9b\\xc2\\x9f");  // C1
}

TEST(Escaped, BytesThatAreNotUtf8AreSpelledOut) {
  EXPECT_EQ(escaped("\x80z"), "\\x80z");                           // no lead byte
  EXPECT_EQ(escaped("\xC0\xAF"), "\\xc0\\xaf");                    // overlong, two bytes
  EXPECT_EQ(escaped("\xE0\x9F\xBF"), "\\xe0\\x9f\\xbf");           // overlong, three
  EXPECT_EQ(escaped("\xF0\x8F\xBF\xBF"), "\\xf0\\x8f\\xbf\\xbf");  // overlong, four
  EXPECT_EQ(escaped("\xED\xA0\x80"), "\\xed\\xa0\\x80");           // a surrogate
  EXPECT_EQ(escaped("\xF4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // beyond U+10FFFF
  EXPECT_EQ(escaped("\xF5\x80\x80\x80"), "\\xf5\\x80\\x80\\x80");  // no such lead byte
  EXPECT_EQ(escaped("\xE4\xB8"), "\\xe4\\xb8");                    // ends too soon
  EXPECT_EQ(escaped("\xE4\xB8z"), "\\xe4\\xb8z");                  // is cut by ASCII
}

TEST(Escaped, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(escaped(std::string(200, 'a')), std::string(200, 'a'));
  EXPECT_EQ(escaped(std::string(201, 'a')), std::string(200, 'a') + "...");
  EXPECT_EQ(escaped("abcdef", 3), "abc...");
  EXPECT_EQ(escaped("世界", 1), "世...");
  EXPECT_EQ(escaped("\n\n", 1), "\\x0a...");
}

TEST(CheckedSizes, RightOrAnError) {
  EXPECT_EQ(checked_mul(3, 5, "x", ExitCode::kModelFile), 15);
  EXPECT_EQ(checked_mul(0, kMax, "x", ExitCode::kModelFile), 0);
  EXPECT_EQ(checked_mul(kMax, 1, "x", ExitCode::kModelFile), kMax);
  EXPECT_EQ(checked_add(kMax - 1, 1, "x", ExitCode::kModelFile), kMax);
  for (const auto& [a, b] : {std::pair{kMax, int64_t{2}},
                             std::pair{int64_t{1} << 32, int64_t{1} << 31},
                             std::pair{int64_t{-1}, int64_t{1}},
                             std::pair{int64_t{1}, int64_t{-1}}})
    EXPECT_THROW(checked_mul(a, b, "x", ExitCode::kModelFile), Error) << a << " " << b;
  for (const auto& [a, b] : {std::pair{kMax, int64_t{1}},
                             std::pair{int64_t{-1}, int64_t{1}},
                             std::pair{int64_t{1}, int64_t{-1}}})
    EXPECT_THROW(checked_add(a, b, "x", ExitCode::kModelFile), Error) << a << " " << b;
}

TEST(CheckedSizes, TheErrorNamesWhatAndHasTheCode) {
  try {
    checked_mul(kMax, kMax, "tensor head", ExitCode::kModelFile);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kModelFile);
    EXPECT_TRUE(std::string(error.what()).starts_with("tensor head: ")) << error.what();
  }
}

}  // namespace
}  // namespace glm
