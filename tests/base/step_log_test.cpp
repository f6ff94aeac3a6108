// StepLog: passes end where the next begins, time goes to its part, waiting is what a rank took
// beyond the fastest of its group, experts are counted, limits hold. SPDX-License-Identifier: MIT
#include "core/base/step_log.h"

#include <gtest/gtest.h>

namespace glm {
namespace {

StepLog::Limits log_limits() {
  StepLog::Limits limits;
  limits.first_layer = 2;
  limits.n_layers = 2;
  limits.n_experts = 3;
  return limits;
}

StepLog::Rows decode_rows(int64_t step) {
  return {.step = step, .kind = StepLog::Kind::kDecode, .own = 1, .all = 2, .sequences = 2};
}

TEST(StepLog, VerbsGoToTheirParts) {
  StepLog log({});
  log.add_verb("tensor", "attention", 9, 9);  // outside of passes
  log.begin_pass(decode_rows(1));
  log.add_verb("tensor", "attention", 0.5, 10);
  log.add_verb("expert", "dispatch", 0.25, 20);
  log.add_verb("expert", "combine", 0.125, 30);
  log.add_verb("world", "logits", 0.0625, 40);
  log.add_verb("world", "plan", 1, 50);
  log.begin_pass(decode_rows(2));
  log.end_pass();
  log.add_verb("tensor", "attention", 9, 9);
  ASSERT_EQ(log.passes().size(), 2u);
  const StepLog::Pass& pass = log.passes()[0];
  EXPECT_EQ(pass.parts[StepLog::kAllReduce], 0.5);
  EXPECT_EQ(pass.parts[StepLog::kDispatch], 0.25);
  EXPECT_EQ(pass.parts[StepLog::kCombine], 0.125);
  EXPECT_EQ(pass.parts[StepLog::kStage], 0.0625);
  EXPECT_EQ(pass.parts[StepLog::kPlan], 1);
  EXPECT_EQ(pass.sent_bytes, 150);
  EXPECT_GE(log.passes()[1].start, pass.start);
  EXPECT_NEAR(pass.start + pass.seconds, log.passes()[1].start, 1e-3);
  EXPECT_EQ(log.passes()[1].sent_bytes, 0);
}

TEST(StepLog, WaitingIsWhatOneTookBeyondTheFastest) {
  StepLog log({});
  log.begin_pass(decode_rows(1));
  log.add_verb("tensor", "attention", 0.5, 0);
  log.add_verb("expert", "combine", 4, 0);
  log.begin_pass(decode_rows(2));
  log.add_verb("tensor", "attention", 0.25, 0);
  log.end_pass();
  const std::vector<float> least = {0.125f, 0.25f};
  log.split_waits("tensor", least);
  EXPECT_EQ(log.passes()[0].parts[StepLog::kAllReduce], 0.125);
  EXPECT_EQ(log.passes()[0].wait, 0.375);
  EXPECT_EQ(log.passes()[0].parts[StepLog::kCombine], 4);
  EXPECT_EQ(log.passes()[1].parts[StepLog::kAllReduce], 0.25);
  EXPECT_EQ(log.passes()[1].wait, 0);
}

TEST(StepLog, CountsRowsOfItsExperts) {
  StepLog log(log_limits());
  const std::vector<int32_t> offsets = {0, 2, 2, 5};
  log.begin_pass({.step = 1, .kind = StepLog::Kind::kPrefill, .own = 3, .all = 3, .sequences = 1});
  log.add_experts(2, offsets);
  log.begin_pass(decode_rows(2));
  log.add_experts(3, offsets);
  log.add_experts(3, offsets);
  log.add_experts(4, offsets);  // the MTP layer
  log.end_pass();
  EXPECT_EQ(log.expert_counts(), (std::vector<int64_t>{2, 0, 3, 0, 0, 0, 0, 0, 0, 4, 0, 6}));
  EXPECT_EQ(log.expert_trace(), (std::vector<int32_t>{2, 0, 3, 0, 0, 0, 0, 0, 0, 4, 0, 6}));
  EXPECT_EQ(log.traced_passes(), 2);
  EXPECT_EQ(log.passes()[0].expert_rows, 5);
  EXPECT_EQ(log.passes()[1].expert_rows, 15);
}

TEST(StepLog, KeepsToItsLimits) {
  StepLog::Limits limits = log_limits();
  limits.passes = 3;
  limits.traced = 13;  // two passes of 6
  StepLog log(limits);
  for (int64_t step = 1; step <= 5; ++step) log.begin_pass(decode_rows(step));
  log.end_pass();
  EXPECT_EQ(log.passes().size(), 3u);
  EXPECT_EQ(log.left_out(), 2);
  EXPECT_EQ(log.traced_passes(), 2);
  EXPECT_EQ(log.expert_trace().size(), 12u);

  limits.passes = 100;
  limits.verbs = 2;
  StepLog few(limits);
  for (int64_t step = 1; step <= 3; ++step) {
    few.begin_pass(decode_rows(step));
    few.add_verb("tensor", "attention", 1, 1);
  }
  EXPECT_EQ(few.passes().size(), 2u);
  EXPECT_EQ(few.left_out(), 1);
}

TEST(StepLog, RunsAreNumbered) {
  StepLog log({});
  log.begin_pass(decode_rows(1));
  log.begin_run();
  log.begin_pass(decode_rows(2));
  log.end_pass();
  EXPECT_EQ(log.passes()[0].run, 0);
  EXPECT_EQ(log.passes()[1].run, 1);
}

}  // namespace
}  // namespace glm
