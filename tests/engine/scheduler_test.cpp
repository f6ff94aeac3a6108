// The scheduler on its own, case by case; random trials are in scheduler_trial_test.cpp.
// SPDX-License-Identifier: MIT
#include "core/engine/scheduler.h"

#include <functional>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "tests/engine/scheduler_samples.h"

namespace glm {
namespace {

TEST(Scheduler, CutsAPromptIntoChunks) {
  Scheduler scheduler(limits(), 1, 16);
  const int32_t id = scheduler.submit(request(45, 5));
  std::vector<size_t> rows;
  for (int step = 0; step < 3; ++step) {
    const StepPlan plan = scheduler.schedule();
    ASSERT_EQ(plan.sequences.size(), 1u);
    rows.push_back(plan.sequences[0].tokens.size());
    EXPECT_EQ(plan.sequences[0].n_logits, step == 2 ? 1 : 0);
  }
  EXPECT_EQ(rows, (std::vector<size_t>{20, 20, 5}));
  EXPECT_TRUE(scheduler.schedule().sequences.empty()) << "the next token is not known yet";
  EXPECT_FALSE(scheduler.idle());
  scheduler.append(id, 9);
  const StepPlan plan = scheduler.schedule();
  EXPECT_EQ(plan.sequences[0].tokens, std::vector<int32_t>{9});
  EXPECT_EQ(plan.sequences[0].position, 45);
}

TEST(Scheduler, WantsLogitsFromAPositionOn) {
  Scheduler scheduler(limits(), 1, 16);
  Request r = request(30, 1);
  r.all_logits = true;
  r.first_logits = 15;
  scheduler.submit(std::move(r));
  std::vector<size_t> rows;
  std::vector<int32_t> logits;
  for (int step = 0; step < 3; ++step) {
    const StepPlan plan = scheduler.schedule();
    ASSERT_EQ(plan.sequences.size(), 1u);
    rows.push_back(plan.sequences[0].tokens.size());
    logits.push_back(plan.sequences[0].n_logits);
  }
  EXPECT_EQ(rows, (std::vector<size_t>{20, 8, 2}));  // 20 rows, then 8 with logits
  EXPECT_EQ(logits, (std::vector<int32_t>{5, 8, 2}));
}

TEST(Scheduler, WantsAllLogitsWhereAskedFor) {
  Scheduler scheduler(limits(), 1, 16);
  Request r = request(10, 2);
  r.all_logits = true;
  scheduler.submit(std::move(r));
  StepPlan plan = scheduler.schedule();
  EXPECT_EQ(plan.sequences[0].tokens.size(), 8u);  // max_logits
  EXPECT_EQ(plan.sequences[0].n_logits, 8);
  plan = scheduler.schedule();
  EXPECT_EQ(plan.sequences[0].n_logits, 2);
}

TEST(Scheduler, RefusesWhatCannotFit) {
  Scheduler scheduler(limits(), 1, 4);
  EXPECT_THROW(scheduler.submit(request(90, 11)), Error);               // context
  EXPECT_THROW(scheduler.submit(request(1, int64_t{1} << 62)), Error);  // context
  EXPECT_THROW(scheduler.submit(request(60, 10)), Error);               // pages
  scheduler.submit(request(60, 4));
}

TEST(Scheduler, SpreadsOverDataRanks) {
  Scheduler scheduler(limits(), 3, 16);
  for (int i = 0; i < 3; ++i) scheduler.submit(request(4, 4));
  std::set<int32_t> ranks;
  for (const PlanSequence& s : scheduler.schedule().sequences) ranks.insert(s.data_rank);
  EXPECT_EQ(ranks.size(), 3u);
}

std::vector<int32_t> ids(const StepPlan& plan) {
  std::vector<int32_t> out;
  for (const PlanSequence& s : plan.sequences) out.push_back(s.id);
  return out;
}

TEST(Scheduler, DecodesBesideALongPrompt) {
  Scheduler scheduler(limits(), 1, 16);
  const int32_t decoding = scheduler.submit(request(4, 4));
  scheduler.schedule();
  scheduler.append(decoding, 1);
  const int32_t prompt = scheduler.submit(request(60, 4));
  const StepPlan plan = scheduler.schedule();
  EXPECT_EQ(ids(plan), (std::vector<int32_t>{decoding, prompt}));
  EXPECT_EQ(plan.sequences[0].tokens.size(), 1u);
  EXPECT_EQ(plan.sequences[1].tokens.size(), 19u) << "what the step has left";
}

TEST(Scheduler, DealsDecodingSequencesOverStepsUnderWay) {
  StepLimits l = limits();
  l.max_sequences = 5;
  Scheduler scheduler(l, 1, 16, 2);
  for (int i = 0; i < 5; ++i) scheduler.submit(request(3, 9));
  EXPECT_EQ(scheduler.schedule().sequences.size(), 5u);
  for (int32_t id = 0; id < 5; ++id) scheduler.append(id, 1);
  EXPECT_EQ(ids(scheduler.schedule()), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(ids(scheduler.schedule()), (std::vector<int32_t>{3, 4}));
  for (int32_t id = 0; id < 5; ++id) scheduler.append(id, 1);
  EXPECT_EQ(ids(scheduler.schedule()), (std::vector<int32_t>{0, 1, 2}));
}

// Three sequences of one page each, and room for four: the next to need a page takes the
// youngest's.
TEST(Scheduler, TakesPagesFromTheYoungest) {
  Scheduler scheduler(limits(), 1, 6);
  for (int i = 0; i < 3; ++i) scheduler.submit(request(15, 50));
  ASSERT_EQ(scheduler.schedule().sequences.size(), 2u);  // 20 rows
  scheduler.append(0, 7);
  while (scheduler.sequence(2).data_rank >= 0) {
    ASSERT_LT(scheduler.sequence(0).tokens.size(), 60u);
    for (const PlanSequence& s : scheduler.schedule().sequences)
      if (s.n_logits > 0) scheduler.append(s.id, 7);
  }
  EXPECT_EQ(scheduler.n_preempted(), 1);
  EXPECT_EQ(scheduler.sequence(2).computed, 0);
  EXPECT_GE(scheduler.sequence(0).data_rank, 0);
  EXPECT_GE(scheduler.sequence(1).data_rank, 0);
  const size_t known = scheduler.sequence(2).tokens.size();
  scheduler.finish(0, FinishReason::kStop);
  scheduler.finish(1, FinishReason::kCancelled);
  const StepPlan plan = scheduler.schedule();
  ASSERT_EQ(ids(plan), std::vector<int32_t>{2});
  EXPECT_EQ(plan.sequences[0].position, 0);
  EXPECT_EQ(plan.sequences[0].tokens.size(), std::min<size_t>(known, 20)) << "prompt and answer";
}

TEST(Scheduler, EndsWhoeverIsToEnd) {
  Scheduler scheduler(limits(), 1, 16);
  const int32_t running = scheduler.submit(request(4, 4));
  scheduler.schedule();
  const int32_t waiting = scheduler.submit(request(4, 4));
  scheduler.finish(waiting, FinishReason::kCancelled);
  scheduler.finish(running, FinishReason::kCancelled);
  EXPECT_TRUE(scheduler.idle());
  EXPECT_THROW(scheduler.finish(running, FinishReason::kStop), Error);
  EXPECT_THROW(scheduler.append(running, 1), Error);
  scheduler.forget(running);
  EXPECT_EQ(scheduler.find(running), nullptr);
  EXPECT_NE(scheduler.find(waiting), nullptr);
}

TEST(Scheduler, VerifiesADraftBehindTheLastToken) {
  Scheduler scheduler(limits(), 1, 16);
  Request r = request(10, 9);
  r.draft = true;
  const int32_t id = scheduler.submit(std::move(r));
  StepPlan step = scheduler.schedule();
  scheduler.append(id, 7);
  StepPlan pass = scheduler.plan_drafts(step, true);
  ASSERT_EQ(pass.sequences.size(), 1u);
  EXPECT_TRUE(pass.draft);
  EXPECT_EQ(pass.sequences[0].position, 0);
  EXPECT_EQ(pass.sequences[0].tokens, (std::vector<int32_t>{5, 5, 5, 5, 5, 5, 5, 5, 5, 7}));
  EXPECT_EQ(pass.sequences[0].n_logits, 1);
  EXPECT_TRUE(scheduler.schedule().sequences.empty()) << "the draft is awaited";
  scheduler.set_draft(id, 8);
  step = scheduler.schedule();
  ASSERT_EQ(step.sequences.size(), 1u);
  EXPECT_EQ(step.sequences[0].tokens, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(step.sequences[0].n_logits, 2);
  EXPECT_EQ(step.sequences[0].n_drafts, 1);
  // Refused: its position is computed again with the right token.
  scheduler.refuse_draft(id);
  scheduler.append(id, 6);
  pass = scheduler.plan_drafts(step, false);
  EXPECT_EQ(pass.sequences[0].tokens, std::vector<int32_t>{6});
  EXPECT_EQ(pass.sequences[0].n_logits, 0);
  step = scheduler.schedule();
  EXPECT_EQ(step.sequences[0].position, 11);
  EXPECT_EQ(step.sequences[0].tokens, std::vector<int32_t>{6});
  // Nothing is guessed behind the end of the answer.
  for (int i = 0; i < 5; ++i) scheduler.append(id, 3);
  scheduler.append(id, 3);
  EXPECT_TRUE(scheduler.plan_drafts(step, true).sequences.empty());
}

// The next request agrees in the first 12 tokens. What the MTP layer has at position 11 goes with
// the token that follows, so that position is computed again.
TEST(Scheduler, GoesOnFromACacheWhereTheMtpLayerCan) {
  Scheduler scheduler(limits(), 1, 16);
  Request first = request(12, 9);
  first.draft = true;
  first.keep_cache = true;
  Request next = first;
  next.prompt.push_back(1);
  const int32_t id = scheduler.submit(std::move(first));
  const StepPlan step = scheduler.schedule();
  scheduler.append(id, 7);
  scheduler.plan_drafts(step, true);
  scheduler.finish(id, FinishReason::kStop);
  scheduler.submit(std::move(next));
  EXPECT_EQ(scheduler.schedule().sequences[0].position, 11);
}

TEST(StepPlan, SurvivesTheWire) {
  StepPlan plan;
  plan.draft = true;
  plan.hidden = 3;
  plan.sequences.push_back({3, 1, 17, 2, {5, 6, 7}, {0, 9}});
  plan.sequences.push_back({4, 0, 0, 0, {}, {}});
  const std::vector<int32_t> wire = plan.serialized();
  const StepPlan back = StepPlan::deserialized(wire);
  EXPECT_EQ(back.serialized(), wire);
  EXPECT_EQ(back.sequences[0].blocks, plan.sequences[0].blocks);
  for (size_t cut = 0; cut < wire.size(); ++cut)
    EXPECT_THROW(StepPlan::deserialized(std::span(wire).first(cut)), Error) << cut;
}

// Numbers that no leader sends: each would overflow an index or point outside the cache.
TEST(StepPlan, ImpossibleNumbersAreRefused) {
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  const auto refused = [](const std::function<void(PlanSequence&)>& change) {
    StepPlan plan;
    plan.sequences.push_back({3, 1, 17, 2, {5, 6, 7}, {0, 9}});
    change(plan.sequences[0]);
    try {
      StepPlan::deserialized(plan.serialized());
    } catch (const Error& error) {
      return error.code() == ExitCode::kCommunication;
    }
    return false;
  };
  EXPECT_FALSE(refused([](PlanSequence&) {}));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.position = -1; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.position = kMost - 1; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.n_logits = -kMost; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.n_logits = 4; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.n_drafts = 4; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.n_drafts = -1; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.hidden_row = -1; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.hidden_row = kMost - 1; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.data_rank = -1; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.data_rank = kMost; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.blocks[1] = -9; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.blocks[1] = kMost / 2; }));
  std::vector<int32_t> wire = StepPlan().serialized();
  wire[4] = -1;  // number of sequences
  EXPECT_THROW(StepPlan::deserialized(wire), Error);
  wire = StepPlan().serialized();
  wire[3] = -2;  // place of hidden states
  EXPECT_THROW(StepPlan::deserialized(wire), Error);
}

}  // namespace
}  // namespace glm
