// The same mistakes in a job of four ranks: one line for the whole job, one exit code, no rank left
// waiting, also when only one rank sees what is wrong. SPDX-License-Identifier: MIT
#include <fstream>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

constexpr double kSoon = 15;  // seconds, on a busy machine

Args with_prompt(const Args& more) {
  Args args = {"--model", model_file("tiny", "q40"), "--prompt", "Hi.", "--max-tokens", "2"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

void expect_job_error(int ranks,
                      const Args& args,
                      int code,
                      const std::vector<std::string>& texts) {
  Command command = infer(ranks, args);
  command.timeout = kSoon;
  expect_error(command, code, texts);
}

TEST(BadJob, Options) {
  expect_job_error(4, with_prompt({"--nonsense"}), 2, {"--nonsense"});
  expect_job_error(4, with_prompt({"--top-p", "0"}), 2, {"--top-p"});
  expect_job_error(4, with_prompt({"--stop", ""}), 2, {"--stop"});
  expect_job_error(4, {"--model", "missing.h5", "--prompt", "x"}, 2, {"missing.h5"});
  expect_job_error(4, {"--model", test_data("tiny"), "--prompt", "x"}, 2, {"glm_convert"});
  expect_job_error(4, {"--model", model_file("tiny", "q40"), "--tokens", "99999"}, 2, {"99999"});
  expect_job_error(4, with_prompt({"--context", "8"}), 2, {"context of 8"});
  expect_job_error(4, with_prompt({"--prompt-file", "missing.txt"}), 2, {"--prompt-file"});
  expect_job_error(4, with_prompt({"--dump-logits", "/proc/logits.h5"}), 2, {"/proc/logits.h5"});
}

TEST(BadJob, Grids) {
  const auto grid_error = [](const Args& grid, const std::vector<std::string>& texts) {
    expect_job_error(4, with_prompt(grid), 2, texts);
  };
  grid_error({"--tensor", "3"}, {"tensor 3", "4 ranks"});
  grid_error({"--expert", "3"}, {"--expert 3"});
  grid_error({"--data", "8"}, {"data 8", "4 ranks"});
  grid_error({"--pipeline", "3", "--tensor", "1"}, {"pipeline 3", "4 ranks"});
  grid_error({"--data", "4", "--expert", "4", "--expert-exchange", "reduce"},
             {"--expert-exchange reduce"});
}

// More shares than experts (16 in this model, 17 ranks would be slow): the plan alone.
TEST(BadJob, MoreRanksThanExpertsAreNoMistake) {
  expect_good(infer(
      0, {"--model", model_file("tiny", "q40"), "--dry-run", "--ranks", "40", "--data", "40"}));
}

TEST(BadJob, AFlippedBitThatOneRankReads) {
  const TempFolder folder("flipped");
  const std::string path = folder / "model.h5";
  std::filesystem::copy_file(model_file("tiny", "q80"), path);
  // Somewhere in the weights: behind the middle of the file.
  const auto at = static_cast<std::streamoff>(std::filesystem::file_size(path) * 3 / 4);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const int byte = file.get();
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 0x10));
  file.close();
  for (const int ranks : {1, 4})
    expect_job_error(ranks,
                     {"--model", path, "--prompt", kFrance, "--temperature", "0"},
                     3,
                     {"model.h5", "block"});
}

TEST(BadJob, ATruncatedModel) {
  const TempFolder folder("truncated");
  const std::string path = folder / "model.h5";
  std::filesystem::copy_file(model_file("tiny", "q80"), path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  for (const int ranks : {1, 4})
    expect_job_error(ranks, {"--model", path, "--prompt", kFrance}, 3, {"model.h5"});
}

TEST(BadJob, StdoutThatTakesNothing) {
  Command command = infer(1, with_prompt({}));
  command.timeout = kSoon;
  // mpirun reads the ranks' output through pipes: its own stdout is not theirs, so the job may end
  // well; it must end.
  command.stdout_path = "/dev/full";
  EXPECT_FALSE(run(command).timed_out);
}

// Ranks that were started with different words, as `mpirun -np 1 A : -np 1 B` does.
Command mixed(const Args& first, const Args& second) {
  Command command = infer(2, first);
  command.argv.insert(command.argv.end(), {":", "-np", "2", program("glm_infer")});
  command.argv.insert(command.argv.end(), second.begin(), second.end());
  command.timeout = kSoon;
  return command;
}

TEST(BadJob, DifferentOptionsPerRank) {
  const auto differs = [](const Args& first, const Args& second) {
    expect_error(mixed(first, second), 2, {"same", "rank"});
  };
  differs(with_prompt({}), with_prompt({"--seed", "5"}));
  differs(with_prompt({"--tensor", "4"}), with_prompt({"--tensor", "2"}));
  differs(with_prompt({"--timeout", "5"}), with_prompt({}));
  differs(with_prompt({}), with_prompt({"--nonsense"}));
  differs(with_prompt({"--nonsense"}), with_prompt({}));
  differs(with_prompt({}), {"--version"});
  differs({"--help"}, with_prompt({}));
}

TEST(BadJob, TheSameOptionsInTwoPartsAreFine) {
  const Outcome outcome =
      expect_good(mixed(with_prompt({"--temperature", "0"}), with_prompt({"--temperature", "0"})));
  EXPECT_NE(outcome.out, "");
}

TEST(Help, OfAJobIsPrintedOnce) {
  const Outcome version = expect_good(infer(4, {"--version"}));
  size_t lines = 0;
  for (const std::string& line : lines_of(version.out)) lines += line.starts_with("glm_infer ");
  EXPECT_EQ(lines, 1u) << version.out;
  const Outcome help = expect_good(infer(4, {"--help"}));
  EXPECT_EQ(help.out.find("Usage:"), help.out.rfind("Usage:"));
  EXPECT_NE(help.out.find("Usage:"), std::string::npos);
}

TEST(DryRun, OfTheRanksThatRun) {
  const std::string folder = folder_with_config("air", config_air());
  const Outcome outcome = expect_good(infer(4, {"--model", folder, "--dry-run"}));
  EXPECT_NE(outcome.out.find("weights total 60."), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("4 ranks"), std::string::npos) << outcome.out;
  const Json json =
      last_json(expect_good(infer(2, {"--model", folder, "--dry-run", "--ranks", "8", "--json"})));
  EXPECT_EQ(json["ranks"].size(), 8u);
}

}  // namespace
}  // namespace glm::testing_support
