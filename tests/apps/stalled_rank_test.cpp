// A rank of a running glm_infer that stands still or dies: the job ends in time, says where, and
// leaves nobody behind. SPDX-License-Identifier: MIT
#include <chrono>
#include <csignal>
#include <thread>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

constexpr double kTimeout = 3;
// Starting, ending and the load of the machine.
constexpr double kOverhead = 5;

// Runs for minutes when nothing stops it.
Command long_run(int ranks) {
  Command command = infer(ranks,
                          {"--model",
                           model_file("golden/glm4_moe_air", "f32"),
                           "--benchmark",
                           "--prompt-tokens",
                           "64",
                           "--max-tokens",
                           "400",
                           "--context",
                           "512",
                           "--repeat",
                           "10000",
                           "--timeout",
                           std::to_string(kTimeout)});
  command.timeout = 60;
  return command;
}

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Ending {
  Outcome outcome;
  double seconds = 0;  // from the signal to the end
};

// Signals one rank `delay` seconds after all of them exist, and waits for the end of the job.
Ending signal_rank(int ranks, int victim, int signal, double delay) {
  Process process(long_run(ranks));
  const auto start = std::chrono::steady_clock::now();
  while (process.rank_pid(ranks - 1) == 0 && since(start) < 20 && !process.wait_for(0.1)) {
  }
  process.wait_for(delay);
  const pid_t pid = process.rank_pid(victim);
  EXPECT_GT(pid, 0) << process.err();
  if (pid > 0) kill(pid, signal);
  const auto signalled = std::chrono::steady_clock::now();
  Ending ending;
  ending.outcome = process.finish();
  ending.seconds = since(signalled);
  for (int i = 0; i < 40 && !process.pids().empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(process.pids().empty()) << "left behind";
  EXPECT_FALSE(ending.outcome.timed_out) << ending.outcome.err;
  return ending;
}

void expect_stall_named(int ranks, int victim) {
  SCOPED_TRACE("rank " + std::to_string(victim) + " of " + std::to_string(ranks));
  std::string line;
  // On a busy machine the ranks may not have begun yet; then again, with more patience.
  for (double delay = 4; delay < 40; delay *= 3) {
    const Ending ending = signal_rank(ranks, victim, SIGSTOP, delay);
    EXPECT_EQ(ending.outcome.code, 5) << ending.outcome.err;
    EXPECT_LT(ending.seconds, kTimeout + kOverhead);
    const std::vector<std::string> errors = errors_of("glm_infer", ending.outcome);
    ASSERT_EQ(errors.size(), 1u) << ending.outcome.err;
    line = errors[0];
    const auto still = [&](const std::string& phase) {
      return line.find(", " + phase + " step") != std::string::npos;
    };
    if (!still("start") && !still("roofs") && !still("load")) break;
  }
  const std::string stalled = "rank " + std::to_string(victim) + " on host ";
  EXPECT_NE(line.find(stalled), std::string::npos) << "names the stalled rank: " << line;
  EXPECT_TRUE(line.find("waited 3 s in ") != std::string::npos ||
              line.find("was last in ") != std::string::npos)
      << "names the operation: " << line;
  EXPECT_NE(line.find("layer "), std::string::npos) << "names the layer: " << line;
  EXPECT_NE(line.find("[rank "), std::string::npos) << "names the reporter: " << line;
  EXPECT_EQ(line.find("[rank " + std::to_string(victim) + " of"), std::string::npos) << line;
}

TEST(StalledRank, OfTwo) {
  expect_stall_named(2, 0);
  expect_stall_named(2, 1);
}

TEST(StalledRank, OfFour) {
  expect_stall_named(4, 0);
  expect_stall_named(4, 3);
}

TEST(KilledRank, EndsTheJobAtOnce) {
  for (const int victim : {0, 1}) {
    const Ending ending = signal_rank(2, victim, SIGKILL, 1.5);
    EXPECT_EQ(ending.outcome.code, 128 + SIGKILL) << ending.outcome.err;
    EXPECT_LT(ending.seconds, kTimeout + kOverhead);
  }
}

}  // namespace
}  // namespace glm::testing_support
