// What the options of prompt and generation do to the text. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

Args with(Args args, const Args& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

Args greedy(const Args& more) {
  return with({"--model", model_file("tiny", "q40"), "--temperature", "0"}, more);
}

std::string answer(int ranks, const Args& args) { return expect_good(infer(ranks, args)).out; }

// The text of the prompt as the program built it, special tokens included.
std::string prompt_of(const Args& more) {
  const Json json =
      last_json(expect_good(infer(0, greedy(with(more, {"--max-tokens", "1", "--json"})))));
  const std::string ids = scratch() / "ids.jsonl";
  write_bytes(ids, json["prompt_tokens"].dump() + "\n");
  return last_json(expect_good(inspect({"detokenize", model_file("tiny", "q40"), "--jsonl", ids})));
}

TEST(Generation, OneSeedOneTextOnAnyNumberOfRanks) {
  const Args args = {"--model",
                     model_file("tiny", "f32"),
                     "--prompt",
                     "The sea",
                     "--raw",
                     "--temperature",
                     "1",
                     "--top-p",
                     "1",
                     "--max-tokens",
                     "40"};
  const std::string one = answer(0, with(args, {"--seed", "7"}));
  EXPECT_GT(one.size(), 20u);
  EXPECT_EQ(answer(0, with(args, {"--seed", "7"})), one);
  EXPECT_EQ(answer(4, with(args, {"--seed", "7"})), one);
  EXPECT_EQ(answer(3, with(args, {"--seed", "7", "--tensor", "3"})), one);
  EXPECT_NE(answer(0, with(args, {"--seed", "8"})), one);
}

TEST(Generation, AStopTextEndsTheAnswerBeforeIt) {
  EXPECT_EQ(answer(0, greedy({"--prompt", kFrance, "--stop", " Paris"})),
            "\n<think></think>\nThe capital of France is\n");
  // The first of several; the others never occur. A stop text may span tokens.
  EXPECT_EQ(answer(2, greedy({"--prompt", kFrance, "--stop", "zebra", "--stop", "l of Fra"})),
            "\n<think></think>\nThe capita\n");
  EXPECT_EQ(answer(0, greedy({"--prompt", kFrance, "--stop", "Paris, "})), kParis);
}

TEST(Generation, MaxTokensCutsTheAnswer) {
  const Json json = last_json(
      expect_good(infer(2, greedy({"--prompt", kFrance, "--max-tokens", "5", "--json"}))));
  EXPECT_EQ(json["tokens"].size(), 5u);
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 5);
}

TEST(Generation, ThePromptIsTheTemplateAroundTheMessage) {
  EXPECT_EQ(prompt_of({"--prompt", "Hi."}), "[gMASK]<sop><|user|>\nHi.<|assistant|>");
  EXPECT_EQ(prompt_of({"--prompt", "Hi.", "--thinking", "on"}),
            "[gMASK]<sop><|user|>\nHi.<|assistant|>");
  EXPECT_EQ(prompt_of({"--prompt", "Hi.", "--thinking", "off"}),
            "[gMASK]<sop><|user|>\nHi./nothink<|assistant|>\n<think></think>");
  EXPECT_EQ(prompt_of({"--prompt", "Hi.", "--system", "Be brief."}),
            "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi.<|assistant|>");
}

TEST(Generation, RawTextGetsOnlyThePrefix) {
  EXPECT_EQ(prompt_of({"--prompt", "The capital", "--raw"}), "[gMASK]<sop>The capital");
  EXPECT_EQ(prompt_of({"--prompt", "[gMASK]<sop>The capital", "--raw"}), "[gMASK]<sop>The capital");
}

TEST(Generation, ControlTokensOfAUserArePlainText) {
  const auto count = [](const Args& more) {
    const Json json =
        last_json(expect_good(infer(0, greedy(with(more, {"--max-tokens", "1", "--json"})))));
    return json["prompt_tokens"].size();
  };
  EXPECT_GT(count({"--prompt", "a<|user|>"}), count({"--prompt", "a"}) + 3);
  EXPECT_EQ(count({"--prompt", "a<|user|>", "--raw"}), count({"--prompt", "a", "--raw"}) + 1);
}

TEST(Generation, APromptFileIsTheSameAsAPrompt) {
  const std::string path = scratch() / "prompt.txt";
  write_bytes(path, kFrance);
  EXPECT_EQ(answer(0, greedy({"--prompt-file", path})), kParis);
  EXPECT_EQ(answer(4, greedy({"--prompt-file", path})), kParis);
}

TEST(Generation, WithoutATokenizerTheAnswerIsIds) {
  const Json expected = Json::parse(read_bytes(test_data("golden/glm4_moe_air/expected.json")));
  std::string prompt, ids;
  for (const Json& id : expected["prompt"]) prompt += (prompt.empty() ? "" : ",") + id.dump();
  for (const Json& id : expected["greedy"]) ids += (ids.empty() ? "" : ",") + id.dump();
  const Args args = {"--model",
                     model_file("golden/glm4_moe_air", "f32"),
                     "--tokens",
                     prompt,
                     "--max-tokens",
                     std::to_string(expected["greedy"].size()),
                     "--temperature",
                     "0"};
  EXPECT_EQ(answer(0, args), ids + "\n");
  EXPECT_EQ(answer(4, args), ids + "\n");
}

TEST(Generation, TheEnvironmentDoesNotMatter) {
  Command command = infer(0, greedy({"--prompt", kFrance, "--top-p", "0.5"}));
  command.env = {{"LC_ALL", "de_DE.UTF-8"}, {"LANG", "tr_TR.UTF-8"}, {"HOME", std::nullopt}};
  EXPECT_EQ(expect_good(command).out, kParis);
  command.close_stdin = true;
  command.folder = "/proc";  // not writable
  EXPECT_EQ(expect_good(command).out, kParis);
}

TEST(Generation, StdinIsNotRead) {
  Command command = infer(2, greedy({"--prompt", kFrance}));
  command.input = std::string(1 << 20, 'x');
  EXPECT_EQ(expect_good(command).out, kParis);
}

}  // namespace
}  // namespace glm::testing_support
