// The files of --batch: what a line may say, what is refused and how it is named, and that answers
// stay whole. SPDX-License-Identifier: MIT
#include "apps/batch_file.h"

#include <gtest/gtest.h>

#include "tests/io/temp_folder.h"

namespace glm {
namespace {

const TempFolder& folder() {
  static const TempFolder kFolder("batch_file");
  return kFolder;
}

std::string file(const std::string& name, const std::string& text) {
  write_bytes(folder() / name, text);
  return (folder() / name).string();
}

std::vector<BatchItem> items(const std::string& text, const InferOptions& defaults = {}) {
  return read_batch(file("in.jsonl", text), defaults);
}

// Of a file with this text: the error's text behind the folder's name.
std::string refusal(const std::string& text) {
  try {
    items(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    std::string what = error.what();
    const size_t at = what.find("in.jsonl");
    return at == std::string::npos ? what : what.substr(at);
  }
  return "nothing was refused";
}

TEST(BatchFile, ReadsEveryKey) {
  const auto all = items(
      R"({"id":"a","prompt":"hi","max_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":3,"min_p":0.1,)"
      R"("repetition_penalty":1.5,"seed":9,"stop":["x","yy"],"system":"be kind","thinking":"off"})"
      "\n\n"
      R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function"}],"stop":"z"})"
      "\r\n"
      R"({"id":"c","tokens":[1,2,3],"thinking":true,"seed":null})");
  ASSERT_EQ(all.size(), 3u);
  const InferOptions& o = all[0].options;
  EXPECT_EQ(all[0].id, "a");
  EXPECT_EQ(*o.prompt, "hi");
  EXPECT_EQ(*o.max_tokens, 7);
  EXPECT_FLOAT_EQ(*o.temperature, 0.5f);
  EXPECT_FLOAT_EQ(*o.top_p, 0.9f);
  EXPECT_EQ(*o.top_k, 3);
  EXPECT_FLOAT_EQ(*o.min_p, 0.1f);
  EXPECT_FLOAT_EQ(*o.repetition_penalty, 1.5f);
  EXPECT_EQ(o.seed, 9u);
  EXPECT_EQ(o.stop, (std::vector<std::string>{"x", "yy"}));
  EXPECT_EQ(*o.system, "be kind");
  EXPECT_EQ(o.thinking, false);
  EXPECT_EQ(all[1].id, "3") << "the number of the line";
  EXPECT_EQ(all[1].messages.size(), 1u);
  EXPECT_EQ(all[1].tools.size(), 1u);
  EXPECT_EQ(all[1].options.stop, std::vector<std::string>{"z"});
  EXPECT_EQ(all[2].tokens, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(all[2].options.thinking, true);
}

TEST(BatchFile, TakesDefaultsFromTheCommandLine) {
  InferOptions defaults;
  defaults.seed = 5;
  defaults.system = "short";
  defaults.stop = {"s"};
  const auto all =
      items("{\"prompt\":\"p\"}\n{\"tokens\":[1]}\n{\"prompt\":\"p\",\"raw\":true,\"stop\":[]}",
            defaults);
  EXPECT_EQ(all[0].options.seed, 5u);
  EXPECT_EQ(*all[0].options.system, "short");
  EXPECT_EQ(all[0].options.stop, std::vector<std::string>{"s"});
  EXPECT_FALSE(all[1].options.system.has_value());
  EXPECT_FALSE(all[2].options.system.has_value());
  EXPECT_TRUE(all[2].options.raw);
  EXPECT_TRUE(all[2].options.stop.empty());
}

TEST(BatchFile, NamesLineAndKey) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"prompt":"x","bogus":1})", "unknown key \"bogus\""},
      {R"({"prompt":"x","max-tokens":1})", "unknown key \"max-tokens\""},
      {R"({"id":1,"prompt":"x"})", "id: expected a string, found 1"},
      {R"({"id":"","prompt":"x"})", "id: expected 1 to"},
      {R"({"id":"x"})", "expected one of prompt, messages and tokens, found none"},
      {R"({"prompt":"x","tokens":[1]})", "found several"},
      {R"({"prompt":1})", "prompt: expected a string, found 1"},
      {R"({"messages":{}})", "messages: expected a list"},
      {R"({"messages":[]})", "messages: the list is empty"},
      {R"({"messages":["x"]})", "messages: expected objects with a \"role\""},
      {R"({"tokens":[]})", "tokens: the list is empty"},
      {R"({"tokens":[-1]})", "tokens: expected an integer from 0"},
      {R"({"tokens":[1.0]})", "tokens: expected an integer from 0"},
      {R"({"prompt":"x","max_tokens":0})", "max_tokens: expected an integer from 1"},
      {R"({"prompt":"x","max_tokens":18446744073709551615})", "max_tokens: expected an integer"},
      {R"({"prompt":"x","temperature":-1})", "temperature: expected a number from 0"},
      {R"({"prompt":"x","temperature":"0"})", "temperature: expected a number from 0"},
      {R"({"prompt":"x","top_p":0})", "top_p: expected a number above 0 and at most 1"},
      {R"({"prompt":"x","top_k":-1})", "top_k: expected an integer"},
      {R"({"prompt":"x","min_p":2})", "min_p: expected a number from 0 and at most 1"},
      {R"({"prompt":"x","repetition_penalty":0})", "repetition_penalty: expected a number above 0"},
      {R"({"prompt":"x","seed":-1})", "seed: expected an integer from 0"},
      {R"({"prompt":"x","stop":1})", "stop: expected a string or a list"},
      {R"({"prompt":"x","stop":[""]})", "stop: expected texts of at least one byte"},
      {R"({"prompt":"x","thinking":"maybe"})", "thinking: expected \"on\""},
      {R"({"prompt":"x","raw":1})", "raw: expected true or false"},
      {R"({"prompt":"x","raw":true,"system":"y"})", "raw goes neither with system"},
      {R"({"tokens":[1],"raw":true})", "raw and system go with prompt only"},
      {R"({"tokens":[1],"tools":[]})", "tools do not go with tokens"},
      {R"({"prompt":"x","prompt":"y"})", "prompt"},
      {R"([1])", "expected an object, found array"},
      {R"({"prompt":"x")", "in.jsonl:2"},
      {"{\"prompt\":\"\xff\"}", "in.jsonl:2"},
      {"nonsense", "in.jsonl:2"}};
  for (const auto& [line, expected] : cases) {
    const std::string text = refusal("{\"prompt\":\"good\"}\n" + line + "\n");
    EXPECT_TRUE(text.starts_with("in.jsonl:2: ")) << line << " -> " << text;
    EXPECT_NE(text.find(expected), std::string::npos) << line << " -> " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos);
  }
}

TEST(BatchFile, CountsTheOtherBadLines) {
  EXPECT_NE(refusal("{}\n{\"prompt\":\"x\"}\n{}\n[]\n").find("2 more bad lines: 3, 4"),
            std::string::npos);
  EXPECT_NE(refusal("{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"y\"}")
                .find("in.jsonl:2: the id \"a\" was used by an earlier line"),
            std::string::npos);
  EXPECT_NE(refusal("{\"id\":\"2\",\"prompt\":\"x\"}\n{\"prompt\":\"y\"}").find("\"2\" was used"),
            std::string::npos);
}

TEST(BatchFile, RefusesFilesWithoutRequests) {
  EXPECT_NE(refusal("").find("no line with a request"), std::string::npos);
  EXPECT_NE(refusal("\n \n").find("no line with a request"), std::string::npos);
  EXPECT_THROW(read_batch((folder() / "absent.jsonl").string(), {}), Error);
  EXPECT_THROW(read_batch(folder().path().string(), {}), Error);
}

std::string fresh(const std::string& name) {
  std::filesystem::remove(folder() / name);
  return (folder() / name).string();
}

TEST(BatchOutput, AppendsWholeLines) {
  const std::string path = fresh("out.jsonl");
  {
    BatchOutput output(path, "in.jsonl", false);
    output.append(R"({"id":"a","finish_reason":"stop"})");
    EXPECT_EQ(read_bytes(path), "{\"id\":\"a\",\"finish_reason\":\"stop\"}\n");
    EXPECT_THROW(BatchOutput(path, "in.jsonl", true), Error) << "two jobs, one file";
  }
  EXPECT_THROW(BatchOutput(path, "in.jsonl", false), Error) << "has answers";
  BatchOutput again(path, "in.jsonl", true);
  EXPECT_EQ(again.done(), std::set<std::string>{"a"});
}

TEST(BatchOutput, CutsAnIncompleteLine) {
  const std::string whole = "{\"id\":\"a\",\"finish_reason\":\"stop\"}\n";
  for (const std::string torn : {"{", "{\"id\":\"b\",\"finish_reason\":\"stop\"}", "\xe2\x82"}) {
    const std::string path = file("torn.jsonl", whole + torn);
    BatchOutput output(path, "in.jsonl", true);
    EXPECT_EQ(output.done(), std::set<std::string>{"a"});
    output.append(R"({"id":"c","finish_reason":"stop"})");
    EXPECT_EQ(read_bytes(path), whole + "{\"id\":\"c\",\"finish_reason\":\"stop\"}\n");
  }
  const std::string path = file("torn.jsonl", "{\"id\"");
  EXPECT_TRUE(BatchOutput(path, "in.jsonl", true).done().empty());
  EXPECT_EQ(read_bytes(path), "");
}

TEST(BatchOutput, RefusesOtherFiles) {
  EXPECT_THROW(BatchOutput(file("x", "hello\n"), "in.jsonl", true), Error);
  EXPECT_THROW(BatchOutput(file("x", "{\"id\":\"a\",\"prompt\":\"p\"}\n"), "in.jsonl", true),
               Error);
  EXPECT_THROW(BatchOutput(file("x", ""), (folder() / "x").string(), false), Error) << "the input";
  EXPECT_THROW(BatchOutput(folder().path().string(), "in.jsonl", false), Error);
  EXPECT_THROW(BatchOutput((folder() / "no" / "x").string(), "in.jsonl", false), Error);
  EXPECT_THROW(BatchOutput("/dev/null", "in.jsonl", false), Error);
}

}  // namespace
}  // namespace glm
