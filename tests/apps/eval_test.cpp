// glm_eval itself: the recorded perplexity, the recorded answers, two files of one model, on one
// and on two ranks; and what it refuses. SPDX-License-Identifier: MIT
#include <cmath>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

const std::string kText = test_data("tiny/expected/eval.txt");
const std::string kQuestions = test_data("tiny/expected/answers.jsonl");

// `ranks` copies of glm_eval under mpirun; 0 starts it without mpirun.
Command eval(int ranks, const Args& args) {
  Command command = infer(ranks, args);
  for (std::string& word : command.argv)
    if (word == program("glm_infer")) word = program("glm_eval");
  return command;
}

double recorded_perplexity() {
  return Json::parse(read_bytes(test_data("tiny/expected/report.json"))).at("perplexity");
}

Json perplexity_of(int ranks, const std::string& dtype, const Args& more = {}) {
  Args args = {"perplexity", "--model", model_file("tiny", dtype), "--text", kText, "--json"};
  args.insert(args.end(), more.begin(), more.end());
  return last_json(expect_good(eval(ranks, args)));
}

TEST(Perplexity, EqualsTheRecordedOne) {
  for (const int ranks : {0, 2}) {
    const Json json = perplexity_of(ranks, "f32");
    EXPECT_NEAR(json.at("perplexity").get<double>() / recorded_perplexity(), 1, 1e-3);
    EXPECT_EQ(json.at("tokens"), 8735);
  }
}

TEST(Perplexity, HardlyChangesWithFourBits) {
  for (const int ranks : {0, 2}) {
    const Json json = perplexity_of(ranks, "q40");
    EXPECT_NEAR(json.at("perplexity").get<double>() / recorded_perplexity(), 1, 0.02);
    EXPECT_EQ(json.at("tokens"), 8735);
  }
}

// Which windows run at once and on which rank does not matter.
TEST(Perplexity, IsTheSameOnOtherGrids) {
  const double alone = perplexity_of(0, "f32", {"--limit", "1500"}).at("perplexity");
  for (const Args& grid : {Args{"--data", "2"}, Args{"--pipeline", "2"}}) {
    Args more = {"--limit", "1500"};
    more.insert(more.end(), grid.begin(), grid.end());
    const Json json = perplexity_of(2, "f32", more);
    EXPECT_EQ(json.at("tokens"), 1500);
    EXPECT_NEAR(json.at("perplexity").get<double>() / alone, 1, 1e-5);
  }
}

TEST(Perplexity, OtherWindowsAndPlainText) {
  const double less = perplexity_of(0, "q80", {"--window", "4", "--stride", "2", "--limit", "1000"})
                          .at("perplexity");
  const double more = perplexity_of(0, "q80", {"--limit", "1000"}).at("perplexity");
  EXPECT_GT(less, 1.02 * more) << "less context must predict worse";
  const Outcome outcome = expect_good(eval(
      0, {"perplexity", "--model", model_file("tiny", "q80"), "--text", kText, "--limit", "100"}));
  EXPECT_TRUE(outcome.out.starts_with("perplexity ")) << outcome.out;
  EXPECT_NE(outcome.out.find(" of 100 tokens"), std::string::npos) << outcome.out;
}

TEST(EvalAnswers, AreCountedOnOneAndTwoRanks) {
  for (const int ranks : {0, 2}) {
    const Json json = last_json(expect_good(eval(ranks,
                                                 {"answers",
                                                  "--model",
                                                  model_file("tiny", "f32"),
                                                  "--jsonl",
                                                  kQuestions,
                                                  "--limit",
                                                  "40",
                                                  "--json"})));
    EXPECT_EQ(json.at("questions"), 40);
    EXPECT_EQ(json.at("right"), 40);
    EXPECT_EQ(json.at("rate"), 1.0);
    EXPECT_TRUE(json.at("wrong").empty());
  }
}

TEST(EvalAnswers, WrongOnesAreShown) {
  const std::string path = scratch() / "wrong.jsonl";
  write_bytes(path,
              "{\"prompt\": \"" + kFrance +
                  "\", \"answer\": \"The capital of France is Paris.\"}\n\n{\"prompt\": \"" +
                  kFrance + "\", \"answer\": \"Lyon.\"}\n");
  const Args args = {"answers", "--model", model_file("tiny", "q40"), "--jsonl", path};
  const Outcome outcome = expect_good(eval(0, args));
  EXPECT_EQ(outcome.out,
            "line 3: expected \"Lyon.\", found \"The capital of France is Paris.\"\n"
            "1 of 2 answers are right, 50.0 %\n");
}

Json comparison(int ranks, const Args& models, const Args& more) {
  Args args = {"compare", models[0], models[1], "--json"};
  args.insert(args.end(), more.begin(), more.end());
  return last_json(expect_good(eval(ranks, args)));
}

TEST(Compare, AFileWithItselfAndWithFourBits) {
  const std::string f32 = model_file("tiny", "f32");
  const Json same = comparison(0, {f32, f32}, {});
  EXPECT_EQ(same.at("kl_divergence").at("max"), 0.0);
  EXPECT_EQ(same.at("top1_agreement"), 1.0);
  EXPECT_GT(same.at("tokens"), 500) << "the sample text";
  const Args text = {"--text", kText, "--limit", "2000"};
  const Json eight = comparison(0, {f32, model_file("tiny", "q80")}, text);
  const Json four = comparison(2, {f32, model_file("tiny", "q40")}, text);
  EXPECT_EQ(four.at("tokens"), 2000);
  const auto mean = [](const Json& json) { return json.at("kl_divergence").at("mean"); };
  EXPECT_GT(mean(eight).get<double>(), 1e-7);
  EXPECT_GT(mean(four).get<double>(), 2 * mean(eight).get<double>());
  EXPECT_LT(mean(four).get<double>(), 0.05);
  EXPECT_LE(four.at("kl_divergence").at("median"), four.at("kl_divergence").at("p99"));
  EXPECT_GT(four.at("top1_agreement").get<double>(), 0.9);
  EXPECT_LT(four.at("top1_agreement").get<double>(), 1.0);
  const double alone = perplexity_of(0, "f32", {"--limit", "2000"}).at("perplexity");
  EXPECT_NEAR(four.at("perplexity_a").get<double>() / alone, 1, 1e-5);
}

void expect_refused(const Args& args, int code, const std::vector<std::string>& texts) {
  expect_error(eval(0, args), code, texts, "glm_eval");
}

TEST(BadEval, Options) {
  const std::string model = model_file("tiny", "q40");
  expect_refused({}, 2, {"subcommand"});
  expect_refused({"perplexity", "--model", model}, 2, {"--text"});
  expect_refused({"perplexity", "--text", kText}, 2, {"--model"});
  expect_refused({"answers", "--model", model}, 2, {"--jsonl"});
  expect_refused({"compare", model}, 2, {"B"});
  expect_refused(
      {"perplexity", "--model", model, "--text", kText, "--window", "8"}, 2, {"--stride"});
  expect_refused(
      {"perplexity", "--model", model, "--text", kText, "--window", "4000"}, 2, {"1024"});
  expect_refused({"perplexity", "--model", "missing.h5", "--text", kText}, 2, {"missing.h5"});
  expect_refused({"perplexity", "--model", kText, "--text", kText}, 3, {"eval.txt"});
  for (const char* help : {"perplexity", "answers", "compare"})
    EXPECT_NE(expect_good(eval(0, {help, "--help"})).out.find("--tensor"), std::string::npos);
  EXPECT_TRUE(expect_good(eval(0, {"--version"})).out.starts_with("glm_eval "));
}

TEST(BadEval, Texts) {
  const std::string model = model_file("tiny", "q40");
  const auto refused = [&](const std::string& path, const std::string& text) {
    expect_refused({"perplexity", "--model", model, "--text", path}, 2, {text});
  };
  write_bytes(scratch() / "empty.txt", "");
  write_bytes(scratch() / "short.txt", "a");
  refused(scratch() / "empty.txt", "empty");
  expect_error(eval(2, {"perplexity", "--model", model, "--text", scratch() / "empty.txt"}),
               2,
               {"empty"},
               "glm_eval");
  refused(scratch() / "short.txt", "1 token");
  refused(scratch() / "missing.txt", "missing.txt");
  refused(scratch().path(), "not a regular file");
  refused("/dev/zero", "not a regular file");
  // Control tokens that a text spells are text.
  write_bytes(scratch() / "control.txt", "<|user|>");
  const Json json = last_json(expect_good(
      eval(0, {"perplexity", "--model", model, "--text", scratch() / "control.txt", "--json"})));
  EXPECT_GT(json.at("tokens"), 1);
}

TEST(BadEval, Questions) {
  const std::string path = scratch() / "bad.jsonl";
  write_bytes(path, "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": \"a\"\n");
  const Args args = {"answers", "--model", model_file("tiny", "q40"), "--jsonl", path};
  for (const int ranks : {0, 2}) expect_error(eval(ranks, args), 2, {"bad.jsonl:2"}, "glm_eval");
  expect_refused(
      {"answers", "--model", model_file("tiny", "q40"), "--jsonl", "no.jsonl"}, 2, {"no.jsonl"});
}

TEST(BadEval, VocabulariesThatDiffer) {
  const std::string tiny = model_file("tiny", "q40");
  const std::string config = test_data("tiny/config.json");
  const std::string nameless = scratch() / "nameless.h5";
  expect_good(convert({"--synthetic", config, nameless, "--dtype", "q40"}));
  for (const int ranks : {0, 2})
    expect_error(
        eval(ranks, {"compare", tiny, nameless}), 2, {"vocabularies", "tokenizer"}, "glm_eval");
  expect_refused({"compare", tiny, model_file("golden/glm4_moe_air", "f32")}, 2, {"vocabularies"});
  expect_refused({"compare", nameless, nameless}, 2, {"no tokenizer"});
  expect_refused({"compare", tiny, "missing.h5"}, 2, {"missing.h5"});
}

// A limit of the file size stands for the disk.
TEST(BadEval, ADiskThatIsFull) {
  const std::string tiny = model_file("tiny", "q40");
  Command command = eval(0, {"compare", tiny, tiny});
  command.file_size = 1 << 20;
  expect_error(command, 4, {"TMPDIR", "--limit"}, "glm_eval");
}

}  // namespace
}  // namespace glm::testing_support
