// A chat through a pipe, on one and two ranks: turns, the cache between them, commands, bad input,
// tools. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

const std::string kFranceAnswer = "The capital of France is Paris.\n";

Command chat(int ranks, const std::string& input, const Args& more = {}) {
  Args args = {"--model", model_file("tiny", "q40"), "--temperature", "0"};
  args.insert(args.end(), more.begin(), more.end());
  Command command = infer(ranks, args);
  command.input = input;
  return command;
}

std::vector<Json> json_lines(const Outcome& outcome) {
  std::vector<Json> out;
  for (const std::string& line : lines_of(outcome.out)) out.push_back(Json::parse(line));
  return out;
}

class ChatTest : public ::testing::TestWithParam<int> {};

TEST_P(ChatTest, AnswersLineByLine) {
  const Outcome outcome = expect_good(
      chat(GetParam(), "What is the capital of France?\n\n/help\nWhat is the capital of Spain?"));
  EXPECT_EQ(outcome.out, kFranceAnswer + "The capital of Spain is Madrid.\n");
  EXPECT_NE(outcome.err.find("chat: /reset"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("chat: 2 turns"), std::string::npos) << outcome.err;
}

// With drafts up to two positions more are computed: what the MTP layer has of a position depends
// on the next token (docs/speculative.md).
TEST_P(ChatTest, TheCacheOutlivesTheTurnWithDraftsToo) {
  const std::string talk = "What is the capital of France?\nWhat is 17 + 58?\nExplain AI\n";
  const auto turns = json_lines(expect_good(chat(GetParam(), talk, {"--json", "--mtp", "on"})));
  const auto plain = json_lines(expect_good(chat(GetParam(), talk, {"--json", "--mtp", "off"})));
  ASSERT_EQ(turns.size(), 4u);
  ASSERT_EQ(plain.size(), 4u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(turns[i]["message"], plain[i]["message"]);
    EXPECT_GE(turns[i]["usage"]["cached_tokens"].get<int64_t>(),
              plain[i]["usage"]["cached_tokens"].get<int64_t>() - 2);
  }
  EXPECT_GT(turns[3]["drafts"]["accepted"].get<int>(), 10);
}

// The prompt of the second turn begins with prompt and answer of the first: only the rest of it is
// computed, and the answers are those of a chat that computes everything.
TEST_P(ChatTest, TheCacheOutlivesTheTurn) {
  const std::string talk =
      "What is the capital of France?\nWhat is 17 + 58?\nOn which continent is Peru?\n";
  const std::vector<Json> turns =
      json_lines(expect_good(chat(GetParam(), talk, {"--json", "--mtp", "off"})));
  ASSERT_EQ(turns.size(), 4u);
  int64_t known = 0;  // tokens of the turns before
  int64_t cached = 0;
  for (size_t i = 0; i < 3; ++i) {
    const Json& usage = turns[i]["usage"];
    EXPECT_EQ(usage["cached_tokens"], known) << turns[i];
    EXPECT_LT(usage["cached_tokens"], usage["prompt_tokens"]);
    known = usage["prompt_tokens"].get<int64_t>() + usage["completion_tokens"].get<int64_t>();
    cached += usage["cached_tokens"].get<int64_t>();
    EXPECT_EQ(turns[i]["turn"], i + 1);
    EXPECT_EQ(turns[i]["finish_reason"], "stop");
  }
  EXPECT_GT(cached, 50);
  EXPECT_EQ(turns[3]["chat"]["cached_tokens"], cached);
  EXPECT_EQ(turns[0]["message"]["content"], "The capital of France is Paris.");
  EXPECT_EQ(turns[1]["message"]["content"], "17 + 58 = 75.");

  const std::string batch = scratch() / ("talk" + std::to_string(GetParam()) + ".jsonl");
  Json messages = Json::array();
  for (size_t i = 0; i < 3; ++i) {
    messages.push_back({{"role", "user"}, {"content", lines_of(talk)[i]}});
    if (i < 2) messages.push_back(turns[i]["message"]);
  }
  write_bytes(batch, Json({{"messages", messages}}).dump() + "\n");
  expect_good(infer(GetParam(),
                    {"--model",
                     model_file("tiny", "q40"),
                     "--temperature",
                     "0",
                     "--batch",
                     batch,
                     "--output",
                     batch + ".out"}));
  const Json answer = Json::parse(read_bytes(batch + ".out"));
  EXPECT_EQ(answer["text"].get<std::string>().substr(17), turns[2]["message"]["content"]) << answer;
  EXPECT_EQ(answer["usage"]["prompt_tokens"], turns[2]["usage"]["prompt_tokens"]);
}

TEST_P(ChatTest, BadInputCostsALine) {
  const std::string huge(2000, 'x');
  const Outcome outcome = expect_good(
      chat(GetParam(),
           "/nonsense\n/load /no/such/file\n\xFF\xFE\n" + huge + "\n/result 1\n/tools " +
               test_data("tiny/README.md") + "\nWhat is the capital of France?\n",
           {"--context", "64"}));
  EXPECT_EQ(outcome.out, kFranceAnswer);
  for (const std::string text : {"chat: unknown command /nonsense",
                                 "chat: /no/such/file",
                                 "chat: this is no UTF-8",
                                 "the context has 64",
                                 "chat: /result",
                                 "README.md"})
    EXPECT_NE(outcome.err.find(text), std::string::npos) << text << "\n" << outcome.err;
  EXPECT_TRUE(errors_of("glm_infer", outcome).empty());
}

INSTANTIATE_TEST_SUITE_P(AloneAndOnTwoRanks, ChatTest, ::testing::Values(0, 2));

// The other rank waits longer for the next line than --timeout allows a rank to stand still.
TEST(Chat, ALongPauseIsNoStandstill) {
  Command command = chat(2, "What is the capital of France?\n", {"--timeout", "1.5"});
  command.input_pause = 5;
  command.late_input = "What is the capital of Spain?\n";
  const Outcome outcome = expect_good(command);
  EXPECT_EQ(outcome.out, kFranceAnswer + "The capital of Spain is Madrid.\n") << outcome.err;
}

TEST(Chat, WithoutInputItEnds) {
  EXPECT_EQ(expect_good(chat(0, "")).out, "");
  EXPECT_EQ(expect_good(chat(2, "")).out, "");
  Command closed = chat(0, "");
  closed.close_stdin = true;
  EXPECT_EQ(expect_good(closed).out, "");
  EXPECT_EQ(expect_good(chat(0, "/quit\nWhat is the capital of France?\n")).out, "");
}

TEST(Chat, ConversationsAreSavedAndLoaded) {
  const std::string path = scratch() / "saved.json";
  expect_good(chat(0, "/system Be brief.\nWhat is the capital of France?\n/save " + path + "\n"));
  const Json saved = Json::parse(read_bytes(path));
  ASSERT_EQ(saved["messages"].size(), 3u);
  EXPECT_EQ(saved["messages"][2]["content"], "The capital of France is Paris.");
  const std::vector<Json> turns = json_lines(
      expect_good(chat(0, "/load " + path + "\nWhat is the capital of Spain?\n", {"--json"})));
  EXPECT_GT(turns[0]["usage"]["prompt_tokens"], 30) << turns[0];
}

TEST(Chat, OptionsThatNeedAPromptSaySo) {
  const std::string model = model_file("tiny", "q40");
  expect_error(infer(0, {"--model", model, "--raw"}), 2, {"no prompt", "--raw"});
  expect_error(
      infer(0, {"--model", model, "--prompt", "x", "--show-thinking"}), 2, {"--show-thinking"});
  expect_error(infer(2, {"--model", model, "--tools", "/no/such/file"}), 2, {"/no/such/file"});
  expect_error(infer(0, {"--model", model_file("golden/glm4_moe_air", "f32")}), 2, {"tokenizer"});
}

// The tiny model calls no tools; the offered ones are part of its prompt.
TEST(Chat, ToolsReachThePrompt) {
  const std::string tools = scratch() / "tools.json";
  write_bytes(tools, R"([{"type": "function", "function": {"name": "now", "parameters": {}}}])");
  const auto tokens = [](const Outcome& outcome) {
    return json_lines(outcome)[0]["usage"]["prompt_tokens"].get<int64_t>();
  };
  const int64_t plain = tokens(expect_good(chat(0, "Hi\n", {"--json"})));
  EXPECT_GT(tokens(expect_good(chat(0, "Hi\n", {"--json", "--tools", tools}))), plain + 50);
  EXPECT_GT(tokens(expect_good(chat(0, "/tools " + tools + "\nHi\n", {"--json"}))), plain + 50);
  const Json alone = last_json(expect_good(infer(
      0, {"--model", model_file("tiny", "q40"), "--prompt", "Hi", "--tools", tools, "--json"})));
  EXPECT_GT(alone["usage"]["prompt_tokens"], plain + 50);
  EXPECT_EQ(alone["message"]["role"], "assistant");
}

}  // namespace
}  // namespace glm::testing_support
