// Caches that are left for sequences with the same beginning: found, taken over, given up when
// pages are short. SPDX-License-Identifier: MIT
#include "core/engine/kept_caches.h"

#include <numeric>

#include <gtest/gtest.h>

#include "core/engine/scheduler.h"

namespace glm {
namespace {

TEST(KeptCaches, TheLongestCommonBeginningIsFound) {
  KeptCaches kept;
  kept.keep({{1, 2, 3}, 0, {10}});
  kept.keep({{1, 2, 4, 5}, 1, {20, 21}});
  kept.keep({{1, 2, 4}, 0, {30}});
  const std::vector<int32_t> tokens = {1, 2, 4, 5, 6};
  const auto match = kept.find(tokens);
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->index, 1u);
  EXPECT_EQ(match->data_rank, 1);
  EXPECT_EQ(match->n_tokens, 4);
  EXPECT_EQ(kept.find(std::vector<int32_t>{1, 2})->n_tokens, 2);
  EXPECT_FALSE(kept.find(std::vector<int32_t>{2, 1}).has_value());
  EXPECT_FALSE(kept.find({}).has_value());
  EXPECT_EQ(kept.n_blocks(0), 2);
  EXPECT_EQ(kept.take(match->index).blocks, (std::vector<int32_t>{20, 21}));
  EXPECT_FALSE(kept.take_oldest(1).has_value());
  EXPECT_EQ(kept.take_oldest(0)->blocks, std::vector<int32_t>{10});
  EXPECT_EQ(kept.n_blocks(0), 1);
}

StepLimits small_limits() {
  StepLimits l;
  l.max_rows = 64;
  l.max_sequences = 2;
  l.max_logits = 2;
  l.max_context = 128;
  return l;
}

// Tokens first, first + 1, ...
Request counting_request(int32_t first, size_t n, bool keep = true) {
  Request r;
  r.prompt.resize(n);
  std::iota(r.prompt.begin(), r.prompt.end(), first);
  r.max_tokens = 8;
  r.keep_cache = keep;
  return r;
}

// Computes the prompt and one token behind it.
int32_t finished(Scheduler& scheduler, const Request& r) {
  const int32_t id = scheduler.submit(r);
  for (int step = 0; step < 2; ++step) {
    while (scheduler.sequence(id).missing() > 0) scheduler.schedule();
    if (step == 0) scheduler.append(id, 1000);
  }
  scheduler.append(id, 1001);  // sampled, and not in the cache
  scheduler.finish(id, FinishReason::kStop);
  return id;
}

TEST(KeptCaches, TheNextTurnComputesOnlyWhatIsNew) {
  Scheduler scheduler(small_limits(), 1, 8);
  finished(scheduler, counting_request(0, 20));
  Request next = counting_request(0, 20);
  for (const int32_t token : {1000, 1001, 7, 8}) next.prompt.push_back(token);
  const int32_t id = scheduler.submit(next);
  const StepPlan plan = scheduler.schedule();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].position, 21);
  EXPECT_EQ(plan.sequences[0].tokens, (std::vector<int32_t>{1001, 7, 8}));
  EXPECT_EQ(plan.sequences[0].n_logits, 1);
  EXPECT_EQ(scheduler.sequence(id).cached, 21);
}

TEST(KeptCaches, ADifferentContinuationSharesTheBeginning) {
  Scheduler scheduler(small_limits(), 1, 8);
  finished(scheduler, counting_request(0, 40));
  Request next = counting_request(0, 18);
  next.prompt.push_back(77);
  const int32_t id = scheduler.submit(next);
  EXPECT_EQ(scheduler.schedule().sequences[0].position, 18);
  EXPECT_EQ(scheduler.sequence(id).blocks.size(), 2u);
  scheduler.finish(id, FinishReason::kStop);
  // All pages are accounted for: one sequence can have them all.
  Request all = counting_request(500, 120, false);
  scheduler.submit(all);
  scheduler.schedule();
  EXPECT_EQ(scheduler.schedule().sequences[0].tokens.size(), 56u);
}

// The logits of the last token are wanted, so that it is computed again.
TEST(KeptCaches, AtLeastOneTokenIsComputed) {
  Scheduler scheduler(small_limits(), 1, 8);
  finished(scheduler, counting_request(0, 32));
  const int32_t id = scheduler.submit(counting_request(0, 32));
  EXPECT_EQ(scheduler.schedule().sequences[0].tokens, std::vector<int32_t>{31});
  EXPECT_EQ(scheduler.sequence(id).cached, 31);
}

TEST(KeptCaches, NothingIsKeptUnlessAskedFor) {
  Scheduler scheduler(small_limits(), 1, 8);
  finished(scheduler, counting_request(0, 32, false));
  EXPECT_EQ(scheduler.submit(counting_request(0, 32)), 1);
  EXPECT_EQ(scheduler.schedule().sequences[0].position, 0);
  EXPECT_EQ(scheduler.sequence(1).cached, 0);
  // Nor for a sequence that wants the logits of every position.
  Scheduler other(small_limits(), 1, 8);
  finished(other, counting_request(0, 32));
  Request all = counting_request(0, 32);
  all.all_logits = true;
  other.submit(all);
  EXPECT_EQ(other.schedule().sequences[0].position, 0);
}

TEST(KeptCaches, WhoNeedsPagesGetsThem) {
  Scheduler scheduler(small_limits(), 1, 8);
  for (int32_t i = 0; i < 3; ++i) finished(scheduler, counting_request(1000 * i, 32));
  // Eight pages, of which the kept caches hold most. Two sequences of 64 tokens need all.
  const int32_t a = scheduler.submit(counting_request(5000, 56, false));
  const int32_t b = scheduler.submit(counting_request(6000, 56, false));
  scheduler.schedule();
  EXPECT_GE(scheduler.sequence(a).data_rank, 0);
  scheduler.finish(a, FinishReason::kStop);
  scheduler.schedule();
  EXPECT_GE(scheduler.sequence(b).data_rank, 0);
  EXPECT_EQ(scheduler.n_preempted(), 0);
}

TEST(KeptCaches, GrowingTakesKeptPagesBeforeThoseOfOthers) {
  Scheduler scheduler(small_limits(), 1, 8);
  finished(scheduler, counting_request(0, 60));  // 4 pages
  const int32_t a = scheduler.submit(counting_request(1000, 30, false));
  const int32_t b = scheduler.submit(counting_request(2000, 24, false));
  scheduler.schedule();
  for (int i = 0; i < 8; ++i) {
    scheduler.append(a, 1);
    scheduler.append(b, 1);
    EXPECT_EQ(scheduler.schedule().sequences.size(), 2u);
  }
  EXPECT_EQ(scheduler.n_preempted(), 0);
}

TEST(KeptCaches, ACancelledPromptLeavesWhatWasComputed) {
  Scheduler scheduler(small_limits(), 1, 8);
  const int32_t id = scheduler.submit(counting_request(0, 100));
  scheduler.schedule();
  scheduler.finish(id, FinishReason::kCancelled);
  scheduler.submit(counting_request(0, 100));
  EXPECT_EQ(scheduler.schedule().sequences[0].position, 64);
}

TEST(KeptCaches, ASequenceGoesWhereItsCacheIs) {
  Scheduler scheduler(small_limits(), 3, 8);
  const int32_t first = finished(scheduler, counting_request(0, 20));
  const int32_t second = scheduler.submit(counting_request(900, 20, false));
  scheduler.schedule();
  const int32_t next = scheduler.submit(counting_request(0, 30));
  scheduler.schedule();
  EXPECT_EQ(scheduler.sequence(second).data_rank, 0) << "all are empty";
  EXPECT_EQ(scheduler.sequence(next).data_rank, 0) << "though it is not the emptiest";
  EXPECT_EQ(scheduler.sequence(next).cached, 20);
  EXPECT_EQ(scheduler.sequence(first).finish, FinishReason::kStop);
}

}  // namespace
}  // namespace glm
