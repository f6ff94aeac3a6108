// How a job ends when a rank fails or stands still: the exit code of mpirun, exactly one line on
// stderr, the time it takes, and nobody left behind. SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  double seconds = 0;
  std::string out, all_err;
  std::vector<std::string> errors;  // lines that begin with "glm_fault: error: "
};

std::string read_text(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Runs a shell command with stdout and stderr in files of this test.
Outcome run_command(const std::string& command) {
  const fs::path folder = fs::path(GLM_TEST_TMP) / ("fault." + std::to_string(getpid()));
  fs::create_directories(folder);
  const std::string out = (folder / "out").string(), err = (folder / "err").string();
  const auto start = std::chrono::steady_clock::now();
  const int status = std::system((command + " >'" + out + "' 2>'" + err + "' </dev/null").c_str());
  Outcome outcome;
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.out = read_text(out);
  outcome.all_err = read_text(err);
  std::istringstream lines(outcome.all_err);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("glm_fault: error: ")) outcome.errors.push_back(line.substr(18));
  fs::remove_all(folder);
  return outcome;
}

// Processes of ours that still run (a zombie waits for init and does nothing).
std::string leftovers(const std::string& mark) {
  std::string found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string line = read_text(entry.path() / "cmdline");
    std::replace(line.begin(), line.end(), '\0', ' ');
    if (line.find(GLM_FAULT_PROGRAM) == 0 && line.find(mark) != std::string::npos) found += line;
  }
  return found;
}

constexpr double kTimeout = 2;
// Of starting and ending a job on a busy machine.
constexpr double kOverhead = 5;

Outcome run_ranks(int ranks,
                  const std::string& mode,
                  int rank,
                  double timeout = kTimeout,
                  const std::string& before = {}) {
  // An argument of its own makes the processes of this run known among others.
  const std::string mark = "run" + std::to_string(getpid());
  std::ostringstream command;
  command << before << GLM_MPIEXEC << " --oversubscribe -np " << ranks << " " << GLM_FAULT_PROGRAM
          << " " << mode << " " << rank << " " << timeout << " " << mark;
  const Outcome outcome = run_command(command.str());
  for (int i = 0; i < 30 && !leftovers(mark).empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(leftovers(mark), "") << "left behind";
  return outcome;
}

void expect_error(const Outcome& outcome, int code, const std::string& text) {
  EXPECT_EQ(outcome.code, code) << outcome.all_err;
  ASSERT_EQ(outcome.errors.size(), 1u) << outcome.all_err;
  EXPECT_NE(outcome.errors[0].find(text), std::string::npos) << outcome.errors[0];
}

TEST(MpiFailure, NothingFails) {
  const Outcome outcome = run_ranks(3, "none", 0);
  EXPECT_EQ(outcome.code, 0) << outcome.all_err;
  EXPECT_EQ(outcome.out, "ranks 3\n");
  EXPECT_TRUE(outcome.errors.empty());
}

TEST(MpiFailure, AVerdictOfTheRootIsSaidOnceInOneLine) {
  const Outcome outcome = run_ranks(4, "root", 0);
  expect_error(outcome, 2, "--tokens: a\\x0ab");
  EXPECT_EQ(outcome.errors[0], "--tokens: a\\x0ab");
}

TEST(MpiFailure, TheSameErrorOnAllRanksIsSaidOnce) {
  for (int i = 0; i < 3; ++i) {
    const Outcome outcome = run_ranks(5, "all", 0);
    expect_error(outcome, 3, "the file is broken [rank ");
  }
}

TEST(MpiFailure, AnErrorOfOneRankEndsTheJobWithItsCode) {
  expect_error(run_ranks(4, "one", 2), 6, "not a number [rank 2 of 4 on host ");
  expect_error(run_ranks(3, "alloc", 1), 4, "out of memory");
  expect_error(run_ranks(2, "other", 1), 1, "something else [rank 1 of 2 on host ");
}

TEST(MpiFailure, AKilledRankIsNamedByAnother) {
  for (const int rank : {0, 1}) {
    const Outcome outcome = run_ranks(3, "kill", rank);
    expect_error(outcome, 137, "rank " + std::to_string(rank) + " on host ");
    EXPECT_LT(outcome.seconds, kTimeout + kOverhead);
    if (outcome.errors.empty()) continue;
    const std::string& line = outcome.errors[0];
    EXPECT_NE(line.find(" is gone: killed, or ended without a word; rank "), std::string::npos)
        << line;
    EXPECT_NE(line.find(" was last in "), std::string::npos) << line;
  }
}

TEST(MpiFailure, AJobThatIsToldToEndSaysNothing) {
  const int nobody = 99;
  const Outcome outcome = run_ranks(4, "stop-unseen", nobody, kTimeout, "timeout -s TERM 2 ");
  EXPECT_NE(outcome.code, 0);
  EXPECT_TRUE(outcome.errors.empty()) << outcome.all_err;
  EXPECT_LT(outcome.seconds, kTimeout + kOverhead);
}

TEST(MpiFailure, AStoppedRankIsNamedWithinTheDeadline) {
  for (const int rank : {0, 1, 3}) {
    const Outcome outcome = run_ranks(4, "stop", rank);
    const std::string name = "rank " + std::to_string(rank);
    expect_error(outcome, 5, name + " on host ");
    if (outcome.errors.empty()) continue;
    const std::string& line = outcome.errors[0];
    EXPECT_NE(line.find("waited 2 s in all_reduce of group tensor, layer 17 (attention), decode "
                        "step 12, seq "),
              std::string::npos)
        << line;
    EXPECT_NE(line.find("has not shown a heartbeat for"), std::string::npos) << line;
    EXPECT_NE(line.find(name + " (host"), 0u) << "the stopped rank cannot report: " << line;
    EXPECT_LT(outcome.seconds, kTimeout + kOverhead);
  }
}

TEST(MpiFailure, ARankStoppedAtTheEndIsNamedToo) {
  const Outcome outcome = run_ranks(3, "stop-at-end", 1);
  expect_error(outcome, 5, "rank 1 on host ");
  EXPECT_LT(outcome.seconds, kTimeout + kOverhead);
}

TEST(MpiFailure, AStoppedRankThatNobodyWaitsForIsFound) {
  for (const int rank : {0, 2}) {
    const Outcome outcome = run_ranks(3, "stop-unseen", rank);
    expect_error(outcome, 5, "rank " + std::to_string(rank) + " on host ");
    if (outcome.errors.empty()) continue;
    EXPECT_NE(outcome.errors[0].find("was last in barrier, layer 17 (attention), decode step 12"),
              std::string::npos)
        << outcome.errors[0];
    EXPECT_LT(outcome.seconds, kTimeout + kOverhead);
  }
}

TEST(MpiFailure, AReceiveWithoutASendNamesTheSender) {
  const Outcome outcome = run_ranks(2, "receive", 1);
  EXPECT_EQ(outcome.code, 5) << outcome.all_err;
  ASSERT_EQ(outcome.errors.size(), 1u) << outcome.all_err;
  EXPECT_NE(outcome.errors[0].find("waiting for rank "), std::string::npos);
  EXPECT_EQ(outcome.errors[0].find("heartbeat"), std::string::npos) << "both ranks are alive";
}

TEST(MpiFailure, AReturnedCodeIsTheCodeOfTheJob) {
  const Outcome outcome = run_ranks(3, "return", 0);
  EXPECT_EQ(outcome.code, 7);
  EXPECT_TRUE(outcome.errors.empty());
}

TEST(MpiFailure, AProgramStartedAloneIsAJobOfOneRank) {
  const Outcome fine = run_command(std::string(GLM_FAULT_PROGRAM) + " none");
  EXPECT_EQ(fine.code, 0) << fine.all_err;
  EXPECT_EQ(fine.out, "ranks 1\n");
  const Outcome broken = run_command(std::string(GLM_FAULT_PROGRAM) + " all");
  EXPECT_EQ(broken.code, 3);
  EXPECT_EQ(broken.all_err, "glm_fault: error: the file is broken\n");
}

TEST(MpiFailure, ASlurmStepThatFallsApartIsRefused) {
  const std::string step = "env SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=";
  const Outcome first = run_command(step + "0 " + GLM_FAULT_PROGRAM + " none");
  expect_error(first, 2, "srun --mpi=pmix");
  const Outcome other = run_command(step + "3 " + GLM_FAULT_PROGRAM + " none");
  EXPECT_EQ(other.code, 2);
  EXPECT_EQ(other.all_err, "") << "one line per step";
  // Under mpirun the variable says nothing about the job.
  setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  const Outcome launched = run_ranks(1, "none", 0);
  unsetenv("SLURM_STEP_NUM_TASKS");
  EXPECT_EQ(launched.code, 0) << launched.all_err;
}

}  // namespace
