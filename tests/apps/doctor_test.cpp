// glm_infer doctor on ranks that are well, and on such that are not. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

Command doctor(int ranks, Args more) {
  more.insert(more.begin(), "doctor");
  return infer(ranks, more);
}

// Findings of a verdict in the JSON object of a report.
std::vector<Json> found(const Json& report, const std::string& verdict) {
  std::vector<Json> out;
  for (const Json& finding : report.at("findings"))
    if (finding.at("verdict") == verdict) out.push_back(finding);
  return out;
}

std::string lines_with(const Outcome& outcome, const std::string& word) {
  std::string text;
  for (const std::string& line : lines_of(outcome.out))
    if (line.starts_with(word)) text += line + "\n";
  return text;
}

TEST(Doctor, IsContentWithAnyNumberOfRanks) {
  const std::string model = model_file("tiny", "q40");
  for (const int ranks : {1, 2, 3, 4}) {
    SCOPED_TRACE(ranks);
    // All layouts, however busy the machine is.
    const Outcome outcome =
        expect_good(doctor(ranks, {"--model", model, "--json", "--self-test", "60"}));
    const Json report = last_json(outcome);
    EXPECT_EQ(report.at("exit_code"), 0);
    EXPECT_TRUE(found(report, "FAIL").empty()) << outcome.out;
    EXPECT_EQ(report.at("ranks").size(), static_cast<size_t>(ranks));
    const Json& test = report.at("self_test");
    const std::map<int, int> layouts = {{1, 1}, {2, 5}, {3, 5}, {4, 14}};
    EXPECT_EQ(test.at("layouts"), layouts.at(ranks));
    EXPECT_EQ(test.at("tried"), layouts.at(ranks));
    EXPECT_LT(test.at("largest_deviation").get<double>(), test.at("allowed_deviation"));
    for (const char* section : {"launch", "versions", "cores", "limits", "model", "memory"})
      EXPECT_NE(outcome.out.find(section), std::string::npos) << section;
    EXPECT_EQ(lines_with(outcome, "FAIL"), "");
    EXPECT_EQ(outcome.err, "");
  }
}

TEST(Doctor, NeedsNoModelAndCanLeaveOutTheSelfTest) {
  const Outcome outcome = expect_good(doctor(2, {"--self-test", "0"}));
  EXPECT_NE(lines_with(outcome, "note").find("left out"), std::string::npos) << outcome.out;
  EXPECT_NE(lines_with(outcome, "note").find("--model FILE"), std::string::npos) << outcome.out;
}

TEST(Doctor, RefusesWhatIsNotItsOwn) {
  expect_error(doctor(0, {"--prompt", "x"}), 2, {"--prompt"});
  expect_error(infer(0, {"--prompt", "x", "doctor"}), 2, {"--prompt", "before the word doctor"});
  expect_error(doctor(2, {"--tensor", "3"}), 2, {"launch", "tensor 3 does not divide"});
}

// The same words on both ranks, which look into folders of their own.
Command apart(const fs::path& first, const fs::path& second) {
  Command command = doctor(1, {"--model", "model.h5", "--self-test", "0"});
  const Args words(command.argv.end() - 6, command.argv.end());  // from the program on
  command.argv.resize(command.argv.size() - words.size());
  const auto add = [&](const Args& args) {
    command.argv.insert(command.argv.end(), args.begin(), args.end());
  };
  add({"-wdir", first});
  add(words);
  add({":", "-np", "1", "-wdir", second});
  add(words);
  return command;
}

TEST(Doctor, FindsTheRankWithAnotherModelFile) {
  const TempFolder here("doctor_a");
  const TempFolder there("doctor_b");
  const std::string good = model_file("tiny", "q40");
  fs::copy_file(good, here / "model.h5");
  fs::copy_file(good, there / "model.h5");
  expect_good(apart(here.path(), there.path()));

  // Same index, other bytes: the blocks are sampled.
  std::fstream file(there / "model.h5", std::ios::in | std::ios::out | std::ios::binary);
  const auto size = static_cast<std::streamoff>(fs::file_size(good));
  for (std::streamoff at = size / 8; at < size - size / 8; at += 4096) {
    file.seekp(at);
    file.put('x');
  }
  file.close();
  expect_error(apart(here.path(), there.path()), 3, {"doctor", "model", "rank 1 on host"});

  fs::copy_file(
      model_file("tiny", "q80"), there / "model.h5", fs::copy_options::overwrite_existing);
  expect_error(apart(here.path(), there.path()), 3, {"rank 1 on host", "another file"});
  expect_error(doctor(2, {"--model", "/nowhere.h5", "--self-test", "0"}), 2, {"/nowhere.h5"});
}

TEST(Doctor, FindsThatThePlanDoesNotFit) {
  const std::string model = model_file("tiny", "q40");
  const Command small =
      doctor(2, {"--model", model, "--capacity", "0.001", "--self-test", "0", "--json"});
  expect_error(small, 4, {"doctor: 1 check failed", "memory", "rank 0", "--capacity"});
  const Outcome outcome = run(small);
  const Json report = last_json(outcome);
  EXPECT_EQ(report.at("exit_code"), 4);
  ASSERT_EQ(found(report, "FAIL").size(), 1u);
  EXPECT_EQ(found(report, "FAIL")[0].at("section"), "memory");
  expect_error(doctor(2, {"--model", model, "--memory-fraction", "1e-7", "--self-test", "0"}),
               4,
               {"memory", "left for the job"});
}

TEST(Doctor, WarnsOfTooManyThreads) {
  const Outcome outcome = expect_good(doctor(0, {"--threads", "64", "--self-test", "0"}));
  EXPECT_NE(lines_with(outcome, "warn").find("64 threads"), std::string::npos) << outcome.out;
}

TEST(Doctor, MissesDevices) {
  const Command command = doctor(2, {"--device", "cuda"});
  const Outcome outcome = run(command);
  EXPECT_TRUE(outcome.code == 2 || outcome.code == 4) << outcome.code;
  EXPECT_EQ(errors_of("glm_infer", outcome).size(), 1u) << outcome.err;
}

// A rank of a test build whose results are damaged.
Command damaged(const std::string& fault) {
  Command command = doctor(2, {"--json"});
  for (std::string& arg : command.argv)
    if (arg == program("glm_infer")) arg = GLM_INFER_FAULTS;
  command.env.push_back({"GLM_FAULT", fault});
  return command;
}

TEST(Doctor, FindsWrongNumbers) {
  const Command command = damaged("rank=1,point=combine,step=1,layer=2,action=skew");
  expect_error(command, 6, {"self-test", "from one rank", "f32"});
  const Json report = last_json(run(command));
  EXPECT_EQ(report.at("exit_code"), 6);
  EXPECT_GE(found(report, "FAIL").size(), 2u);
  // Numbers that are none end the layout at once.
  expect_error(damaged("rank=1,point=combine,step=1,layer=2,action=corrupt"),
               6,
               {"self-test, data 1", "not finite", " of 2 on host "});
}

TEST(Doctor, DoesNotWaitForARankThatIsGone) {
  Command command = damaged("rank=1,point=prefill,step=1,action=stop");
  command.argv.insert(command.argv.end(), {"--timeout", "3"});
  const Outcome outcome = run(command);
  EXPECT_FALSE(outcome.timed_out);
  EXPECT_EQ(outcome.code, 5) << outcome.err;
  EXPECT_LT(outcome.seconds, 20);
}

}  // namespace
}  // namespace glm::testing_support
