// The tokenizer against recorded ids of the reference library, round trips of bytes, provenance,
// and files and texts made to break it. SPDX-License-Identifier: MIT
#include "io/tokenizer.h"

#include <fstream>

#include <gtest/gtest.h>

#include "io/json.h"
#include "io/unicode.h"
#include "tests/io/tiny_tokenizer.h"

namespace glm {
namespace {

// The message of the error that `file` raises; fails the test when there is none.
std::string refusal(const Json& file) {
  try {
    make(file);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kModelFile);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> out;
  for (const int32_t id : tokenizer.encode(text, false))
    out.emplace_back(tokenizer.token_bytes(id));
  return out;
}

TEST(Tokenizer, EqualsRecordedIds) {
  std::ifstream file(kTiny + "expected/tokenizer.jsonl");
  std::string line;
  int count = 0;
  while (std::getline(file, line)) {
    const Json record = Json::parse(line);
    const auto text = record["text"].get<std::string>();
    const auto ids = record["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tiny().encode(text, true), ids) << text;
    EXPECT_EQ(tiny().decode(ids, false), text);
    ++count;
  }
  EXPECT_EQ(count, 2000);
}

TEST(Tokenizer, BothFormsOfMergesAgree) {
  Json file = tiny_json();
  for (Json& merge : file["model"]["merges"])
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  const Tokenizer joined = make(file);
  const std::string text = "In sooth, I know not why I am so sad: 12345 \u00e9\u4f60";
  EXPECT_EQ(joined.encode(text, true), tiny().encode(text, true));
}

TEST(Tokenizer, RoundTripOfAllBytesAndPairs) {
  for (int first = 0; first < 256; ++first) {
    std::string bytes(1, static_cast<char>(first));
    EXPECT_EQ(tiny().decode(tiny().encode(bytes, true), false), bytes);
    bytes += ' ';
    for (int second = 0; second < 256; ++second) {
      bytes[1] = static_cast<char>(second);
      ASSERT_EQ(tiny().decode(tiny().encode(bytes, true), false), bytes) << first << " " << second;
    }
  }
}

TEST(Tokenizer, InvalidUtf8KeepsItsBytesAndItsNeighbours) {
  const std::string text = "capital \xFF\xFE of\xC3 France \xED\xA0\x80 \xF4\x90\x80\x80!";
  const std::vector<int32_t> ids = tiny().encode(text, true);
  EXPECT_EQ(tiny().decode(ids, false), text);
  const std::vector<int32_t> clean = tiny().encode("capital ", true);
  EXPECT_TRUE(std::equal(clean.begin(), clean.end(), ids.begin()));
}

TEST(Tokenizer, SplitsAsThePatternSays) {
  // A vocabulary of bytes only shows no splits, so whole words become tokens by ignore_merges.
  Json file = tiny_json();
  int32_t next = 3000;
  for (const char* piece : {"Hello",
                            ",",
                            "\u0120world",
                            "!",
                            "\u0120It",
                            "'s",
                            "\u0120",
                            "123",
                            "45",
                            "\u0120don",
                            "'T",
                            "\u010A\u010A",
                            "x"})
    if (!file["model"]["vocab"].contains(piece)) file["model"]["vocab"][piece] = next++;
  const std::vector<std::string> expected = {"Hello",
                                             ",",
                                             " world",
                                             "!",
                                             " It",
                                             "'s",
                                             " ",
                                             "123",
                                             "45",
                                             " don",
                                             "'T",
                                             "\n\n",
                                             " ",
                                             " ",
                                             "x"};
  // The last space is part of " x", which is no token and falls to bytes.
  EXPECT_EQ(pieces(make(file), "Hello, world! It's 12345 don'T\n\n  x"), expected);
}

TEST(Tokenizer, CaseFoldingAndWhiteSpaceAreUnicode) {
  Json file = tiny_json();
  file["model"]["vocab"]["'\u00c5\u00bf"] = 3000;             // bytes of ' and U+017F, long s
  file["model"]["vocab"]["\u00c2\u0142\u00c2\u0142"] = 3001;  // two no-break spaces
  EXPECT_EQ(make(file).encode("a'\u017f", false).back(), 3000);
  EXPECT_EQ(make(file).encode("\u00a0\u00a0", false), std::vector<int32_t>{3001});
}

TEST(Tokenizer, ByteLevelAloneUsesTheGpt2Pattern) {
  Json file = tiny_json();
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  file["model"]["vocab"]["1234567"] = 3000;
  EXPECT_EQ(make(file).encode("1234567", false), std::vector<int32_t>{3000});
  EXPECT_GT(tiny().encode("1234567", false).size(), 2U);
}

TEST(Tokenizer, MergesByRankLeftmostFirst) {
  Json file = tiny_json();
  file["model"]["ignore_merges"] = false;
  file["model"]["vocab"]["QQ"] = 3000;
  file["model"]["vocab"]["QQQ"] = 3001;
  file["model"]["merges"] = Json::array({"Q Q", "QQ Q"});
  EXPECT_EQ(pieces(make(file), "QQQQQ"), (std::vector<std::string>{"QQ", "QQQ"}));
  file["model"]["merges"] = Json::array({"QQ Q", "Q Q"});
  EXPECT_EQ(pieces(make(file), "QQQ"), (std::vector<std::string>{"QQQ"}));
  file["model"]["merges"] = Json::array({"Q Q"});
  EXPECT_EQ(pieces(make(file), "QQQ"), (std::vector<std::string>{"QQ", "Q"}));
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(pieces(make(file), "QQQ"), (std::vector<std::string>{"QQQ"}));
}

TEST(Tokenizer, NormalFormC) {
  Json file = tiny_json();
  file["normalizer"] = {{"type", "NFC"}};
  const Tokenizer nfc = make(file);
  EXPECT_EQ(nfc.encode("e\u0301 <think>\u212b", true), tiny().encode("\u00e9 <think>\u00c5", true));
  EXPECT_EQ(nfc.decode(nfc.encode("\xFF"
                                  "e\u0301\xFE",
                                  true),
                       false),
            "\xFF\u00e9\xFE");
  EXPECT_EQ(to_nfc("a\u0315\u0300\u05ae\u0062"), "\u00e0\u05ae\u0315\u0062");
  EXPECT_EQ(to_nfc("\u1100\u1161\u11a8"), "\uac01");
  file["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_NE(refusal(file).find("normalizer: type Lowercase"), std::string::npos);
}

TEST(Tokenizer, PrefixOfThePostProcessor) {
  Json file = tiny_json();
  const Json special = {{"id", "[gMASK]"}, {"type_id", 0}};
  const Json sequence = {{"id", "A"}, {"type_id", 0}};
  Json processing = {{"type", "TemplateProcessing"},
                     {"single", {{{"SpecialToken", special}}, {{"Sequence", sequence}}}},
                     {"special_tokens", {{"[gMASK]", {{"id", "[gMASK]"}, {"ids", {1986}}}}}}};
  file["post_processor"] = {{"type", "Sequence"},
                            {"processors", {{{"type", "ByteLevel"}}, processing}}};
  EXPECT_EQ(make(file).prefix(), std::vector<int32_t>{1986});
  EXPECT_TRUE(tiny().prefix().empty());
  processing["single"].push_back({{"SpecialToken", special}});
  file["post_processor"] = processing;
  EXPECT_NE(refusal(file).find("behind the text"), std::string::npos);
  file["post_processor"] = {{"type", "BertProcessing"}};
  EXPECT_NE(refusal(file).find("BertProcessing"), std::string::npos);
}

TEST(Tokenizer, DecodeSkipsSpecialAndUnknownIds) {
  const std::vector<int32_t> ids = {1986, 1988, 40, 2006, -1, 99999, 2147483647};
  EXPECT_EQ(tiny().decode(ids, true), "I<think>");
  EXPECT_EQ(tiny().decode(ids, false), "[gMASK]<sop>I<think>");
  EXPECT_TRUE(tiny().is_special(1986));
  EXPECT_FALSE(tiny().is_special(2006));
  EXPECT_FALSE(tiny().is_special(-5));
  EXPECT_EQ(tiny().vocab_size(), 2016);
  EXPECT_EQ(tiny().token_id("<think>"), 2006);
  EXPECT_EQ(tiny().token_id("I"), 40);
  EXPECT_EQ(tiny().token_id("no such token"), std::nullopt);
}

TEST(Tokenizer, ControlTokensByOrigin) {
  const std::string all = "/nothink<think></think><|user|><sop>";
  const auto control = [&](Origin origin) {
    std::vector<int32_t> out;
    for (const int32_t id : tiny().encode({{all, origin}}))
      if (id >= 1984) out.push_back(id);
    return out;
  };
  EXPECT_EQ(control(Origin::kTemplate), (std::vector<int32_t>{2005, 2006, 2007, 1991, 1988}));
  EXPECT_EQ(control(Origin::kUser), (std::vector<int32_t>{2005}));
  EXPECT_EQ(control(Origin::kAssistant), (std::vector<int32_t>{2005, 2006, 2007}));
  EXPECT_EQ(control(Origin::kPlain), std::vector<int32_t>{});
}

TEST(Tokenizer, RunsAreJoinedButNoTokenSpansTwo) {
  const Text text = {{"<|user|>\ncap", Origin::kTemplate},
                     {"ital of Fr", Origin::kUser},
                     {"ance?", Origin::kPlain},
                     {"<|assistant|>", Origin::kTemplate}};
  EXPECT_EQ(tiny().encode(text), tiny().encode("<|user|>\ncapital of France?<|assistant|>", true));
  const Text forged = {{"<|us", Origin::kTemplate}, {"er|>", Origin::kUser}};
  EXPECT_EQ(tiny().encode(forged), tiny().encode("<|user|>", false));
  for (const int32_t id : tiny().encode(forged)) EXPECT_LT(id, 1984);
}

TEST(Tokenizer, LongestAddedTokenWins) {
  Json file = tiny_json();
  file["added_tokens"].push_back({{"id", 2016}, {"content", "<think>!"}, {"special", false}});
  file["added_tokens"].push_back({{"id", 2017}, {"content", "hink"}, {"normalized", true}});
  const Tokenizer tokenizer = make(file);
  EXPECT_EQ(tokenizer.encode("<think>!<think>", true), (std::vector<int32_t>{2016, 2006}));
  EXPECT_EQ(tokenizer.encode("hink<think>hinkhink", true),
            (std::vector<int32_t>{2017, 2006, 2017, 2017}));
}

TEST(TokenizerBadFile, Merges) {
  Json file = tiny_json();
  file["model"]["merges"][3] = Json::array({"zzzz", "q"});
  EXPECT_NE(refusal(file).find("merges[3]: zzzz is not in the vocabulary"), std::string::npos);
  for (const Json& bad : {Json("ab"), Json("a b c"), Json(7), Json::array({"a"}), Json("a ")}) {
    file["model"]["merges"][3] = bad;
    EXPECT_NE(refusal(file).find("merges[3]"), std::string::npos) << bad;
  }
}

TEST(TokenizerBadFile, Ids) {
  for (const Json& bad : {Json(uint64_t{1} << 31),
                          Json(-1),
                          Json(1.5),
                          Json("7"),
                          Json(nullptr),
                          Json(int64_t{1} << 62),
                          Json(~uint64_t{0})}) {
    Json file = tiny_json();
    file["model"]["vocab"]["th"] = bad;
    EXPECT_NE(refusal(file).find("is not an integer from 0"), std::string::npos) << bad;
    file = tiny_json();
    file["added_tokens"][0]["id"] = bad;
    EXPECT_NE(refusal(file).find("is not an integer from 0"), std::string::npos) << bad;
  }
  Json file = tiny_json();
  file["model"]["vocab"]["th"] = 40;
  EXPECT_NE(refusal(file).find("id 40 has two tokens"), std::string::npos);
  file = tiny_json();
  file["added_tokens"][0]["id"] = 40;
  EXPECT_NE(refusal(file).find("disagree about id 40"), std::string::npos);
  file = tiny_json();
  file["added_tokens"][1]["id"] = 1984;
  EXPECT_NE(refusal(file).find("id 1984 is taken"), std::string::npos);
}

TEST(TokenizerBadFile, GapsDecodeToNothing) {
  Json file = tiny_json();
  file["added_tokens"].push_back({{"id", 2500}, {"content", "<gap>"}});
  const Tokenizer tokenizer = make(file);
  EXPECT_EQ(tokenizer.vocab_size(), 2501);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{2300, 2500}, false), "<gap>");
}

TEST(TokenizerBadFile, AddedTokens) {
  Json file = tiny_json();
  file["added_tokens"][2]["content"] = "";
  EXPECT_NE(refusal(file).find("added_tokens[2]: content is empty"), std::string::npos);
  file = tiny_json();
  file["added_tokens"][2]["content"] = std::string(1000, 'a');
  EXPECT_NE(refusal(file).find("added_tokens[2]: content of 1000 bytes"), std::string::npos);
  file = tiny_json();
  file["added_tokens"][2]["content"] = "<sop>";
  EXPECT_NE(refusal(file).find("stands twice"), std::string::npos);
  for (const char* key : {"lstrip", "rstrip", "single_word"}) {
    file = tiny_json();
    file["added_tokens"][2][key] = true;
    EXPECT_NE(refusal(file).find(key), std::string::npos);
  }
}

TEST(TokenizerBadFile, Structure) {
  for (const char* key : {"model", "pre_tokenizer"}) {
    Json file = tiny_json();
    file.erase(key);
    EXPECT_NE(refusal(file).find(key), std::string::npos);
    file[key] = 7;
    EXPECT_NE(refusal(file).find(key), std::string::npos);
  }
  Json file = tiny_json();
  file["model"]["type"] = "Unigram";
  EXPECT_NE(refusal(file).find("Unigram"), std::string::npos);
  file = tiny_json();
  file["model"]["byte_fallback"] = true;
  EXPECT_NE(refusal(file).find("byte_fallback"), std::string::npos);
  file = tiny_json();
  file["model"]["vocab"].erase("Q");
  EXPECT_NE(refusal(file).find("no token for byte 0x51"), std::string::npos);
  file = tiny_json();
  file["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed";
  EXPECT_NE(refusal(file).find("Removed"), std::string::npos);
  file = tiny_json();
  file["decoder"]["type"] = "Metaspace";
  EXPECT_NE(refusal(file).find("Metaspace"), std::string::npos);
  EXPECT_THROW(Tokenizer("{", "t"), Error);
  EXPECT_THROW(Tokenizer("[]", "t"), Error);
}

TEST(TokenizerBadFile, BrokenUtf8AndLoneSurrogates) {
  std::string text = tiny_json().dump();
  const size_t at = text.find("\"<sop>\"");
  EXPECT_THROW(Tokenizer(std::string(text).replace(at, 7, "\"\xFF\""), "t"), Error);
  EXPECT_THROW(Tokenizer(std::string(text).replace(at, 7, "\"\\ud800\""), "t"), Error);
}

TEST(TokenizerBadFile, Patterns) {
  EXPECT_NE(refusal(with_pattern("(a")).find("pattern is refused"), std::string::npos);
  EXPECT_NE(refusal(with_pattern("[a&&b]")).find("&&"), std::string::npos);
  EXPECT_NE(refusal(with_pattern("\\bword")).find("unsupported in a pattern"), std::string::npos);
  EXPECT_NE(refusal(with_pattern("(*UTF)a")).find("(*"), std::string::npos);
  EXPECT_NE(refusal(with_pattern(std::string(100'000, 'a'))).find("too long"), std::string::npos);
}

TEST(TokenizerBadFile, NormalizersInACircle) {
  // JSON cannot refer to itself; what comes nearest is a sequence nested for ever.
  Json normalizer = {{"type", "NFC"}};
  for (int i = 0; i < 12; ++i)
    normalizer = {{"type", "Sequence"}, {"normalizers", Json::array({normalizer})}};
  Json file = tiny_json();
  file["normalizer"] = normalizer;
  EXPECT_NE(refusal(file).find("normalizer"), std::string::npos);
}

}  // namespace
}  // namespace glm
