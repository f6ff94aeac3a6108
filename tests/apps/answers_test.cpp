// The right answer from the program itself, on every number of ranks and every kind of grid, at
// every dtype. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

struct Launch {
  int ranks;
  Args grid;
};

Args greedy(const std::string& model, const Args& more) {
  Args args = {"--model", model, "--prompt", kFrance, "--temperature", "0"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::string text_of(const Launch& launch) {
  std::string text = std::to_string(launch.ranks) + " ranks";
  for (const std::string& arg : launch.grid) text += " " + arg;
  return text;
}

// stdout is the answer and nothing else; stderr names the grid.
void expect_paris(const std::string& dtype, const Launch& launch) {
  SCOPED_TRACE(dtype + ", " + text_of(launch));
  const Outcome outcome =
      expect_good(infer(launch.ranks, greedy(model_file("tiny", dtype), launch.grid)));
  EXPECT_EQ(outcome.out, kParis);
  EXPECT_NE(outcome.err.find("grid: data "), std::string::npos) << outcome.err;
}

TEST(Answers, WithoutMpirun) {
  for (const char* dtype : {"f32", "bf16", "f16", "q80", "q40"}) expect_paris(dtype, {0, {}});
}

TEST(Answers, DefaultGridsOfOneToFiveRanks) {
  for (int ranks = 1; ranks <= 5; ++ranks) expect_paris("q40", {ranks, {}});
}

TEST(Answers, FourRanksAtWiderTypes) {
  for (const char* dtype : {"f32", "q80"}) expect_paris(dtype, {4, {}});
}

TEST(Answers, TensorGrids) {
  expect_paris("q40", {4, {"--tensor", "2", "--pipeline", "2"}});
  expect_paris("q40", {3, {"--tensor", "3"}});
  expect_paris("q40", {5, {"--tensor", "5"}});
  expect_paris("q40", {4, {"--tensor", "4", "--expert", "1"}});
}

TEST(Answers, BothExchanges) {
  for (const char* exchange : {"reduce", "alltoall"})
    expect_paris("q40", {4, {"--tensor", "4", "--expert", "4", "--expert-exchange", exchange}});
}

TEST(Answers, DataGrids) {
  expect_paris("q40", {4, {"--data", "4", "--expert", "4", "--expert-exchange", "alltoall"}});
  expect_paris("q40", {4, {"--data", "2", "--tensor", "2", "--expert", "4"}});
}

TEST(Answers, ThreadsAndOperationsDoNotMatter) {
  expect_paris("q40", {2, {"--threads", "3"}});
  expect_paris("f32", {2, {"--ops", "ref"}});
  expect_paris("q40", {2, {"--ops", "checked"}});
  expect_paris("q40", {0, {"--kv-dtype", "q8"}});
  expect_paris("q40", {0, {"--no-verify"}});
}

}  // namespace
}  // namespace glm::testing_support
