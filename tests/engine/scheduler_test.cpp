// The scheduler on its own: limits are kept, every token is computed once, pages cover positions.
// SPDX-License-Identifier: MIT
#include "core/engine/scheduler.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "core/base/rng.h"

namespace glm {
namespace {

Request request(int64_t prompt, int64_t max_tokens) {
  Request r;
  r.prompt.assign(static_cast<size_t>(prompt), 5);
  r.max_tokens = max_tokens;
  return r;
}

StepLimits limits() {
  StepLimits l;
  l.max_rows = 20;
  l.max_sequences = 3;
  l.max_logits = 8;
  l.max_context = 100;
  return l;
}

TEST(Scheduler, CutsAPromptIntoChunks) {
  Scheduler scheduler(limits(), 1, 16);
  const int32_t id = scheduler.submit(request(45, 5));
  std::vector<size_t> rows;
  for (int step = 0; step < 3; ++step) {
    const StepPlan plan = scheduler.schedule();
    ASSERT_EQ(plan.sequences.size(), 1u);
    rows.push_back(plan.sequences[0].tokens.size());
    EXPECT_EQ(plan.sequences[0].n_logits, step == 2 ? 1 : 0);
    scheduler.commit(plan);
  }
  EXPECT_EQ(rows, (std::vector<size_t>{20, 20, 5}));
  scheduler.append(id, 9);
  const StepPlan plan = scheduler.schedule();
  EXPECT_EQ(plan.sequences[0].tokens, std::vector<int32_t>{9});
  EXPECT_EQ(plan.sequences[0].position, 45);
}

TEST(Scheduler, WantsAllLogitsWhereAskedFor) {
  Scheduler scheduler(limits(), 1, 16);
  Request r = request(10, 2);
  r.all_logits = true;
  scheduler.submit(std::move(r));
  StepPlan plan = scheduler.schedule();
  EXPECT_EQ(plan.sequences[0].tokens.size(), 8u);  // max_logits
  EXPECT_EQ(plan.sequences[0].n_logits, 8);
  scheduler.commit(plan);
  plan = scheduler.schedule();
  EXPECT_EQ(plan.sequences[0].n_logits, 2);
}

TEST(Scheduler, RefusesWhatCannotFit) {
  Scheduler scheduler(limits(), 1, 4);
  EXPECT_THROW(scheduler.submit(request(90, 11)), Error);  // context
  EXPECT_THROW(scheduler.submit(request(60, 10)), Error);  // pages
  scheduler.submit(request(60, 4));
}

TEST(Scheduler, SpreadsOverDataRanks) {
  Scheduler scheduler(limits(), 3, 16);
  for (int i = 0; i < 3; ++i) scheduler.submit(request(4, 4));
  std::set<int32_t> ranks;
  for (const PlanSequence& s : scheduler.schedule().sequences) ranks.insert(s.data_rank);
  EXPECT_EQ(ranks.size(), 3u);
}

// Random requests to the end, with everything a rank relies on checked at each step.
TEST(Scheduler, KeepsItsPromisesOverManySteps) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const StepLimits l = limits();
    const int data = 1 + static_cast<int>(seed % 3);
    Scheduler scheduler(l, data, 9);
    const auto draw = [&, n = uint64_t{0}](int64_t low, int64_t high) mutable {
      return low +
             static_cast<int64_t>(uniform_double(seed, n++) * static_cast<double>(high - low + 1));
    };
    std::map<int32_t, int64_t> wanted;
    for (int i = 0; i < 12; ++i) {
      const int64_t prompt = draw(1, 80), answer = draw(1, 20);
      wanted[scheduler.submit(request(prompt, answer))] = answer;
    }
    std::map<int32_t, int64_t> next_position;
    int steps = 0;
    while (!scheduler.idle()) {
      ASSERT_LT(++steps, 5000);
      const StepPlan plan = scheduler.schedule();
      ASSERT_FALSE(plan.sequences.empty());
      std::map<int32_t, int64_t> rows, sequences;
      std::map<int32_t, std::set<int32_t>> pages;
      for (const PlanSequence& s : plan.sequences) {
        rows[s.data_rank] += static_cast<int64_t>(s.tokens.size());
        ++sequences[s.data_rank];
        EXPECT_EQ(s.position, next_position[s.id]);
        next_position[s.id] += static_cast<int64_t>(s.tokens.size());
        EXPECT_GE(static_cast<int64_t>(s.blocks.size()) * kKvBlockTokens, next_position[s.id]);
        for (const int32_t block : s.blocks) {
          EXPECT_TRUE(pages[s.data_rank].insert(block).second) << "page shared by two sequences";
          EXPECT_TRUE(block >= 0 && block < 9);
        }
      }
      for (const auto& [rank, n] : rows) EXPECT_LE(n, l.max_rows);
      for (const auto& [rank, n] : sequences) EXPECT_LE(n, l.max_sequences);
      EXPECT_LE(plan.n_logits(), l.max_logits);
      scheduler.commit(plan);
      for (const PlanSequence& s : plan.sequences) {
        if (s.n_logits == 0) continue;
        scheduler.append(s.id, 1);
        if (scheduler.sequence(s.id).n_generated() == wanted[s.id])
          scheduler.finish(s.id, FinishReason::kLength);
      }
    }
  }
}

TEST(StepPlan, SurvivesTheWire) {
  StepPlan plan;
  plan.sequences.push_back({3, 1, 17, 2, {5, 6, 7}, {0, 9}});
  plan.sequences.push_back({4, 0, 0, 0, {}, {}});
  const std::vector<int32_t> wire = plan.serialized();
  const StepPlan back = StepPlan::deserialized(wire);
  EXPECT_EQ(back.serialized(), wire);
  EXPECT_EQ(back.sequences[0].blocks, plan.sequences[0].blocks);
  for (size_t cut = 0; cut < wire.size(); ++cut)
    EXPECT_THROW(StepPlan::deserialized(std::span(wire).first(cut)), Error) << cut;
}

}  // namespace
}  // namespace glm
