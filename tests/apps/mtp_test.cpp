// --mtp: the same answers from the command line, in every way to ask; what is reported and planned.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

Args drafting(const std::string& mode, const Args& more) {
  Args args = {"--model", model_file("tiny", "q40"), "--reproducible", "--mtp", mode};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

Json drafted_answer(int ranks, const std::string& mode) {
  return last_json(expect_good(
      infer(ranks, drafting(mode, {"--prompt", "Explain AI", "--temperature", "0", "--json"}))));
}

TEST(Mtp, OneAnswerInFewerSteps) {
  const Json plain = drafted_answer(0, "off");
  EXPECT_EQ(plain["drafts"]["mode"], "off");
  EXPECT_EQ(plain["drafts"]["verified"], 0);
  for (const int ranks : {1, 2, 4}) {
    const Json json = drafted_answer(ranks, "on");
    EXPECT_EQ(json["tokens"], plain["tokens"]);
    EXPECT_EQ(json["finish_reason"], "stop");
    const Json& drafts = json["drafts"];
    EXPECT_EQ(drafts["mode"], "on");
    EXPECT_GT(drafts["verified"].get<int>(), 10);
    EXPECT_LE(drafts["accepted"].get<int>(), drafts["verified"].get<int>());
    EXPECT_GE(drafts["tokens_per_step"].get<double>(), 1.2);
    EXPECT_FALSE(drafts["switched_off"].get<bool>());
    for (const Json& rank : json["ranks"])
      EXPECT_LE(rank["peak_rss_bytes"].get<double>(), 1.10 * rank["plan_bytes"].get<double>())
          << rank.dump();
    const Json& last = json["ranks"].back()["weight_bytes_by_kind"];
    EXPECT_GT(last["mtp"].get<int64_t>(), 0);
  }
}

// What the command line says decides, else greedy answers are drafted as long as it pays.
TEST(Mtp, AutoIsForGreedyAnswers) {
  const auto drafts = [](const Args& more) {
    Args args = {"--model", model_file("tiny", "q40"), "--prompt", kFrance, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return last_json(expect_good(infer(0, args)))["drafts"];
  };
  EXPECT_EQ(drafts({"--temperature", "0"})["mode"], "auto");
  const Json sampled = drafts({"--temperature", "1"});
  EXPECT_EQ(sampled["mode"], "off");
  EXPECT_NE(sampled["reason"].get<std::string>().find("sampled"), std::string::npos);
  EXPECT_GT(drafts({"--temperature", "1", "--mtp", "on"})["verified"].get<int>(), 0);
  const std::string dump = scratch() / "mtp_logits.h5";
  EXPECT_EQ(drafts({"--temperature", "0", "--mtp", "on", "--dump-logits", dump})["mode"], "off");
}

TEST(Mtp, OneSeedOneTextOnAnyNumberOfRanks) {
  const auto text = [](int ranks) {
    return expect_good(infer(ranks,
                             drafting("on",
                                      {"--prompt",
                                       "The sea",
                                       "--raw",
                                       "--temperature",
                                       "0.9",
                                       "--max-tokens",
                                       "40",
                                       "--seed",
                                       "5"})))
        .out;
  };
  const std::string one = text(0);
  EXPECT_GT(one.size(), 20u);
  EXPECT_EQ(text(3), one);
  EXPECT_EQ(text(4), one);
}

TEST(Mtp, BatchAndChatSayTheSame) {
  const std::string in = scratch() / "mtp.jsonl";
  write_bytes(in,
              "{\"id\":\"a\",\"prompt\":\"What is MPI?\"}\n"
              "{\"id\":\"b\",\"prompt\":\"What is 17 + 58?\",\"max_tokens\":7}\n"
              "{\"id\":\"c\",\"prompt\":\"Explain AI\",\"stop\":\"machines\"}\n");
  const auto batch = [&](int ranks, const std::string& mode) {
    const std::string out = scratch() / fmt::format("mtp_{}_{}.jsonl", ranks, mode);
    const Outcome outcome = expect_good(infer(
        ranks, drafting(mode, {"--batch", in, "--output", out, "--temperature", "0", "--json"})));
    EXPECT_EQ(last_json(outcome)["drafts"]["verified"].get<int>() > 0, mode == "on");
    std::vector<std::string> lines = lines_of(read_bytes(out));
    std::sort(lines.begin(), lines.end());
    return lines;
  };
  const auto plain = batch(0, "off");
  EXPECT_EQ(plain.size(), 3u);
  EXPECT_EQ(batch(0, "on"), plain);
  EXPECT_EQ(batch(4, "on"), plain);

  const auto chat = [](const std::string& mode) {
    Command command = infer(2, drafting(mode, {"--temperature", "0"}));
    command.input = "What is MPI?\nExplain AI\n" + kFrance + "\n";
    return expect_good(command).out;
  };
  EXPECT_EQ(chat("on"), chat("off"));
}

TEST(Mtp, MeasuredAndExamined) {
  Args args = {"--model", model_file("tiny", "q40"), "--benchmark", "--json"};
  args.insert(args.end(),
              {"--prompt-tokens", "20", "--max-tokens", "12", "--repeat", "1", "--context", "64"});
  EXPECT_EQ(last_json(expect_good(infer(0, args)))["drafts"]["mode"], "off");
  args.insert(args.end(), {"--mtp", "on"});
  const Json json = last_json(expect_good(infer(2, args)));
  EXPECT_GT(json["drafts"]["verified"].get<int>(), 0);
  EXPECT_GT(json["benchmark"]["decode_tokens_per_second"].get<double>(), 0);
}

TEST(Mtp, ThePlanSaysIt) {
  const auto plan = [](const std::string& mode) {
    return expect_good(infer(0, drafting(mode, {"--dry-run", "--ranks", "4"}))).out;
  };
  EXPECT_NE(plan("off").find("in the file, not loaded"), std::string::npos);
  EXPECT_NE(plan("on").find("loaded to draft tokens"), std::string::npos);
}

TEST(Mtp, BadRequests) {
  expect_error(infer(0, drafting("maybe", {"--prompt", "x"})), 2, {"--mtp", "on", "off", "auto"});
  for (const int ranks : {0, 2})
    expect_error(infer(ranks,
                       {"--model",
                        model_file("golden/glm4_moe_air", "f32"),
                        "--tokens",
                        "1,2",
                        "--mtp",
                        "on"}),
                 2,
                 {"--mtp on", "has no MTP layer"});
}

}  // namespace
}  // namespace glm::testing_support
