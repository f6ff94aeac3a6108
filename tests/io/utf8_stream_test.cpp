// Joining token bytes to characters. SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "io/tokenizer.h"
#include "io/unicode.h"

namespace glm {
namespace {

TEST(Utf8Stream, JoinsCharactersOverCalls) {
  const std::string text = "a\u00e9\u4f60\U0001F600z";
  for (size_t step = 1; step <= text.size(); ++step) {
    Utf8Stream stream;
    std::string out;
    for (size_t at = 0; at < text.size(); at += step) {
      const std::string part = stream.push(std::string_view(text).substr(at, step));
      EXPECT_TRUE(is_utf8(part));
      out += part;
    }
    EXPECT_EQ(out + stream.finish(), text);
  }
}

TEST(Utf8Stream, ReplacesWhatIsNoCharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xFF"
                        "b"),
            "a\uFFFDb");
  EXPECT_EQ(stream.push("\xE4\xBD"), "");
  EXPECT_EQ(stream.push("x"), "\uFFFDx");
  EXPECT_EQ(stream.push("\xC0\xAF"), "\uFFFD\uFFFD");
  EXPECT_EQ(stream.push("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(stream.push("\xF0\x9F"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace glm
