// tokenizer.model in the tiktoken form: the same ids as the tokenizer.json it stands for, and files
// that are refused. SPDX-License-Identifier: MIT
#include "io/tiktoken.h"

#include <fstream>

#include <gtest/gtest.h>

#include "tests/io/tiny_tokenizer.h"

namespace glm {
namespace {

std::string base64(std::string_view bytes) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? kAlphabet[bits >> (18 - 6 * k) & 63u] : '=';
  }
  return out;
}

// The tiny tokenizer in the old form; its control tokens begin behind the vocabulary.
std::string tiny_model() {
  std::string out;
  const auto size = static_cast<int32_t>(tiny_json()["model"]["vocab"].size());
  for (int32_t id = 0; id < size; ++id)
    out += base64(tiny().token_bytes(id)) + " " + std::to_string(id) + "\n";
  return out;
}

OrderedJson tiny_added() {
  OrderedJson added = OrderedJson::object();
  const Json file = tiny_json();
  for (const Json& token : file["added_tokens"])
    added[std::to_string(token["id"].get<int>())] = {{"content", token["content"]},
                                                     {"special", token["special"]}};
  return added;
}

std::string converted(const std::string& model, const OrderedJson& added) {
  return tiktoken_to_json(model, "tokenizer.model", added, "tokenizer_config.json");
}

TEST(Tiktoken, GivesTheIdsOfTheSameTokenizer) {
  const Tokenizer tokenizer(converted(tiny_model(), tiny_added()), "tokenizer.model");
  EXPECT_EQ(tokenizer.vocab_size(), tiny().vocab_size());
  for (int32_t id = 0; id < tiny().vocab_size(); ++id) {
    EXPECT_EQ(tokenizer.token_bytes(id), tiny().token_bytes(id));
    EXPECT_EQ(tokenizer.is_special(id), tiny().is_special(id));
  }
  std::ifstream file(kTiny + "expected/tokenizer.jsonl");
  std::string line;
  int count = 0;
  for (; std::getline(file, line); ++count) {
    const Json record = Json::parse(line);
    EXPECT_EQ(tokenizer.encode(record["text"].get<std::string>(), true),
              record["ids"].get<std::vector<int32_t>>())
        << line;
  }
  EXPECT_EQ(count, 2000);
  EXPECT_EQ(tokenizer.prefix(), (std::vector<int32_t>{1986, 1988}));  // [gMASK] <sop>
}

// Every split into two tokens is a merge, by the rank of the whole, then of the halves.
TEST(Tiktoken, MergesAreInOrderOfRank) {
  std::string model;
  for (int byte = 0; byte < 256; ++byte)
    model += base64(std::string(1, static_cast<char>(byte))) + " " + std::to_string(byte) + "\n";
  // Not in the order of their ranks; lines of other systems.
  model += base64("abc") + " 300\r\n" + base64("bc") + " 258\r\n" + base64("ab") + " 257\r\n\n";
  const Json json = Json::parse(converted(model, OrderedJson::object()));
  EXPECT_EQ(json["model"]["merges"],
            Json::parse(R"([["a", "b"], ["b", "c"], ["a", "bc"], ["ab", "c"]])"));
  EXPECT_EQ(json["model"]["vocab"]["\u0120"], 32);
  EXPECT_TRUE(json["post_processor"].is_null());
  const Tokenizer tokenizer(json.dump(), "t");
  EXPECT_EQ(tokenizer.encode("abc", true), std::vector<int32_t>{300});
  EXPECT_EQ(tokenizer.encode("bcab", true), (std::vector<int32_t>{258, 257}));
}

TEST(Tiktoken, IsToldFromSentencePiece) {
  EXPECT_TRUE(is_tiktoken("IQ== 0\nIg== 1\n"));
  EXPECT_TRUE(is_tiktoken("IQ== 0"));
  EXPECT_FALSE(is_tiktoken(""));
  EXPECT_FALSE(is_tiktoken(std::string("\x0a\x0e\x0a\x05<unk>\x15\0\0", 13)));
  EXPECT_FALSE(is_tiktoken("IQ==\n"));
  EXPECT_FALSE(is_tiktoken("{}"));
}

std::string refusal(const std::string& model, const OrderedJson& added = OrderedJson::object()) {
  try {
    converted(model, added);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kModelFile);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "accepted";
}

TEST(Tiktoken, BadLinesAreNamed) {
  const std::string good = "IQ== 0\n";
  for (const char* line : {"IQ= 1",
                           "IQ 1",
                           " 1",
                           "IQ==  1",
                           "IQ== x",
                           "IQ== 1 2",
                           "IQ== -1",
                           "IQ== 99999999999",
                           "I=== 1",
                           "IQ==\t1",
                           "\xff\xff== 1",
                           "IQ== 1x"})
    EXPECT_NE(refusal(good + line + "\n").find("tokenizer.model:2: expected"), std::string::npos)
        << line;
  EXPECT_NE(refusal(good + "Ig== 16777216\n").find("tokenizer.model:2"), std::string::npos);
  EXPECT_NE(refusal(good + "Ig== 0\n").find("rank 0 has two tokens"), std::string::npos);
  EXPECT_NE(refusal(good + "IQ== 1\n").find("two ranks"), std::string::npos);
  EXPECT_NE(refusal(good + base64(std::string(1025, 'a')) + " 1\n").find("1025 bytes"),
            std::string::npos);
}

TEST(Tiktoken, BadAddedTokensAreNamed) {
  const auto added = [](const char* text) { return refusal("IQ== 0\n", OrderedJson::parse(text)); };
  EXPECT_NE(added("[]").find("added_tokens_decoder: expected an object"), std::string::npos);
  EXPECT_NE(added(R"({"x": {}})").find("\"x\" is no id"), std::string::npos);
  EXPECT_NE(added(R"({"-1": {}})").find("is no id"), std::string::npos);
  EXPECT_NE(added(R"({"5": {}})").find("5: expected an object with content"), std::string::npos);
  EXPECT_NE(added(R"({"5": 3})").find("5: expected"), std::string::npos);
  EXPECT_NE(added(R"({"5": {"content": "a", "special": 1}})").find("5.special"), std::string::npos);
}

// Tokens that are prefixes of each other have as many splits as bytes.
TEST(Tiktoken, ManySplitsEnd) {
  std::string model;
  for (int length = 1; length <= 1024; ++length)
    model +=
        base64(std::string(static_cast<size_t>(length), 'a')) + " " + std::to_string(length) + "\n";
  EXPECT_NE(refusal(model).find("merges take more"), std::string::npos);
}

}  // namespace
}  // namespace glm
