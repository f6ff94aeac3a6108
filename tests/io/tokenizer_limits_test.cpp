// Texts and patterns that would take for ever in a naive tokenizer. SPDX-License-Identifier: MIT
#include <ctime>
#include <functional>

#include <gtest/gtest.h>

#include "tests/io/tiny_tokenizer.h"
#include "tests/support/instrumented.h"
#include "tests/support/repeated.h"

namespace glm {
namespace {

// Of this process on a core, so that a busy machine changes nothing.
double seconds_of(const std::function<void()>& work) {
  const std::clock_t start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

TEST(TokenizerLimits, CatastrophicPatternEnds) {
  const Tokenizer tokenizer = make(with_pattern("(a+)+$"));
  const std::string text = std::string(1'000'000, 'a') + "b";
  const double seconds = seconds_of([&] { EXPECT_THROW(tokenizer.encode(text, true), Error); });
  EXPECT_LT(seconds, 10);
}

TEST(TokenizerLimits, LongRunsOfOneCharacter) {
  for (const std::string unit : {"a", " ", "\n", "1", "!", "\u00e9", "\u4f60", "<", "\xFF"}) {
    const size_t bytes = testing_support::kInstrumented ? 200'000 : 1'000'000;
    const std::string text = repeated(unit, bytes / unit.size());
    std::vector<int32_t> ids;
    const double seconds = seconds_of([&] { ids = tiny().encode(text, true); });
    EXPECT_EQ(tiny().decode(ids, false), text);
    EXPECT_LT(seconds, testing_support::kInstrumented ? 4 : 1) << unit;
  }
}

TEST(TokenizerLimits, MarksJoinersAndNul) {
  Json file = tiny_json();
  file["normalizer"] = {{"type", "NFC"}};
  const Tokenizer nfc = make(file);
  // Alternating classes are the worst case of a simple sort.
  const std::string marks = "a" + repeated("\u0315\u0300\u0316", 100'000);
  const double seconds = seconds_of([&] { EXPECT_FALSE(nfc.encode(marks, true).empty()); });
  EXPECT_LT(seconds, 10);
  const std::string chain = repeated("\U0001F468\u200d", 20'000);
  EXPECT_EQ(nfc.decode(nfc.encode(chain, true), false), chain);
  const std::string nul("a\0b\0\0 c", 7);
  EXPECT_EQ(nfc.decode(nfc.encode(nul, true), false), nul);
}

}  // namespace
}  // namespace glm
