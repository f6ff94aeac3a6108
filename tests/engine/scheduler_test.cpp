// The scheduler on its own: limits are kept, positions follow each other, pages cover them and
// belong to one sequence at a time, everybody comes to an end. SPDX-License-Identifier: MIT
#include "core/engine/scheduler.h"

#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <tuple>

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

class Draw {
 public:
  explicit Draw(uint64_t seed) : seed_(seed) {}
  int64_t operator()(int64_t low, int64_t high) {
    return low +
           static_cast<int64_t>(uniform_double(seed_, n_++) * static_cast<double>(high - low + 1));
  }

 private:
  uint64_t seed_;
  uint64_t n_ = 0;
};

// What all ranks together know of the cache: which token of which sequence a place holds, after the
// plans so far in their order. A plan may only rely on positions that are still there.
class CacheModel {
 public:
  void run(const StepPlan& plan, int64_t n_blocks) {
    std::map<std::pair<int32_t, int32_t>, int32_t> owner;  // (data rank, page) -> sequence
    for (const PlanSequence& s : plan.sequences) {
      const auto end = s.position + static_cast<int32_t>(s.tokens.size());
      ASSERT_GE(static_cast<int64_t>(s.blocks.size()) * kKvBlockTokens, end);
      for (const int32_t block : s.blocks) {
        ASSERT_TRUE(block >= 0 && block < n_blocks);
        ASSERT_TRUE(owner.emplace(std::pair(s.data_rank, block), s.id).second) << "page shared";
      }
      for (int32_t p = 0; p < end; ++p) {
        auto& place = places_[{
            s.data_rank, s.blocks[static_cast<size_t>(p / kKvBlockTokens)], p % kKvBlockTokens}];
        const std::pair<int32_t, int32_t> content(s.id, p);
        if (p >= s.position)
          place = content;
        else
          ASSERT_EQ(place, content) << "position " << p << " of sequence " << s.id << " is gone";
      }
    }
  }

 private:
  std::map<std::tuple<int32_t, int32_t, int32_t>, std::pair<int32_t, int32_t>> places_;
};

struct Trial {
  StepLimits limits;
  int data = 1;
  int n_ahead = 1;
  int64_t n_blocks = 9;
};

// Random requests, joining and leaving as it goes, with steps under way whose tokens come late.
// Everything a rank relies on is checked at each step; returns how often pages were taken back.
int64_t run_trial(uint64_t seed, const Trial& trial) {
  Draw draw(seed);
  Scheduler scheduler(trial.limits, trial.data, trial.n_blocks, trial.n_ahead);
  CacheModel cache;
  std::map<int32_t, int64_t> wanted;
  std::deque<StepPlan> under_way;
  int to_submit = 14;
  for (int steps = 0; to_submit > 0 || !scheduler.idle() || !under_way.empty(); ++steps) {
    if (steps > 20000) {
      ADD_FAILURE() << "no end in sight";
      return 0;
    }
    if (to_submit > 0 && draw(0, 2) == 0) {
      const int64_t prompt = draw(1, 80);
      const int64_t answer = draw(1, 30);
      if (prompt + answer <= trial.limits.max_context) {
        wanted[scheduler.submit(request(prompt, answer))] = answer;
        --to_submit;
      }
    }
    StepPlan plan;
    if (static_cast<int>(under_way.size()) < trial.n_ahead) plan = scheduler.schedule();
    if (plan.sequences.empty() && under_way.empty()) {
      EXPECT_TRUE(scheduler.idle()) << "stuck";
      if (!scheduler.idle()) return 0;
    }
    std::map<int32_t, int64_t> rows, sequences;
    for (const PlanSequence& s : plan.sequences) {
      rows[s.data_rank] += static_cast<int64_t>(s.tokens.size());
      ++sequences[s.data_rank];
    }
    for (const auto& [rank, n] : rows) EXPECT_LE(n, trial.limits.max_rows);
    for (const auto& [rank, n] : sequences) EXPECT_LE(n, trial.limits.max_sequences);
    EXPECT_LE(plan.n_logits(), trial.limits.max_logits);
    cache.run(plan, trial.n_blocks);
    const bool wait = plan.sequences.empty() || draw(0, 1) == 0;
    if (!plan.sequences.empty()) under_way.push_back(std::move(plan));
    if (!wait || under_way.empty()) continue;
    for (const PlanSequence& s : under_way.front().sequences) {
      const Sequence& sequence = scheduler.sequence(s.id);
      const size_t end = static_cast<size_t>(s.position) + s.tokens.size();
      if (s.n_logits == 0 || sequence.finish != FinishReason::kNone ||
          end != sequence.tokens.size())
        continue;
      scheduler.append(s.id, 1);
      if (draw(0, 99) == 0)
        scheduler.finish(s.id, FinishReason::kCancelled);
      else if (sequence.n_generated() == wanted[s.id])
        scheduler.finish(s.id, FinishReason::kLength);
    }
    under_way.pop_front();
  }
  for (const auto& [id, answer] : wanted) {
    EXPECT_NE(scheduler.sequence(id).finish, FinishReason::kNone);
    if (scheduler.sequence(id).finish == FinishReason::kLength) {
      EXPECT_EQ(scheduler.sequence(id).n_generated(), answer);
    }
  }
  return scheduler.n_preempted();
}

TEST(Scheduler, KeepsItsPromisesWithPagesForAll) {
  for (uint64_t seed = 0; seed < 20; ++seed)
    EXPECT_EQ(run_trial(seed, {limits(), 1 + static_cast<int>(seed % 3), 1, 3 * 7}), 0);
}

TEST(Scheduler, KeepsItsPromisesWhenPagesAreShort) {
  int64_t preempted = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Trial trial;
    trial.limits = limits();
    trial.limits.max_sequences = 1 + static_cast<int64_t>(seed % 7);
    trial.data = 1 + static_cast<int>(seed % 3);
    trial.n_ahead = 1 + static_cast<int>(seed % 4);
    trial.n_blocks = 7 + static_cast<int64_t>(seed % 5);
    preempted += run_trial(seed, trial);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(preempted, 20) << "the trials are too easy";
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
  EXPECT_TRUE(refused([](PlanSequence& s) { s.data_rank = -1; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.data_rank = kMost; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.blocks[1] = -9; }));
  EXPECT_TRUE(refused([](PlanSequence& s) { s.blocks[1] = kMost / 2; }));
  std::vector<int32_t> wire = StepPlan().serialized();
  wire[2] = -1;  // number of sequences
  EXPECT_THROW(StepPlan::deserialized(wire), Error);
}

}  // namespace
}  // namespace glm
