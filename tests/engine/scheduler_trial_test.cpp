// The scheduler under random requests: limits are kept, positions follow each other, pages cover
// them and belong to one sequence at a time, everybody comes to an end. SPDX-License-Identifier:
// MIT
#include <deque>
#include <map>
#include <tuple>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/engine/scheduler_samples.h"

namespace glm {
namespace {

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
// plans so far in their order. A plan may only rely on positions that are still there, with the
// tokens that have become certain. `ahead`: a place holds the token so far behind its position,
// as that of the MTP layer does.
class CacheModel {
 public:
  explicit CacheModel(size_t ahead) : ahead_(ahead) {}

  void run(const StepPlan& plan, const Scheduler& scheduler, int64_t n_blocks) {
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
        const auto token = p >= s.position
                               ? s.tokens[static_cast<size_t>(p - s.position)]
                               : scheduler.sequence(s.id).tokens[static_cast<size_t>(p) + ahead_];
        const std::tuple<int32_t, int32_t, int32_t> content(s.id, p, token);
        if (p >= s.position)
          place = content;
        else
          ASSERT_EQ(place, content) << "position " << p << " of sequence " << s.id << " is gone";
      }
    }
  }

 private:
  size_t ahead_;
  std::map<std::tuple<int32_t, int32_t, int32_t>, std::tuple<int32_t, int32_t, int32_t>> places_;
};

struct Trial {
  StepLimits limits;
  int data = 1;
  int n_ahead = 1;
  int64_t n_blocks = 9;
  bool drafts = false;
};

// What the engine does with the tokens of a step, here drawn at random. Drafts are right half of
// the time.
class Tokens {
 public:
  Tokens(Scheduler& scheduler, Draw& draw, std::map<int32_t, int64_t>& wanted)
      : scheduler_(scheduler), draw_(draw), wanted_(wanted) {}

  void end_step(const PlanSequence& s) {
    const Sequence& sequence = scheduler_.sequence(s.id);
    const auto end = static_cast<int64_t>(s.position + s.tokens.size());
    const int n_drafts = sequence.draft >= 0 ? 1 : 0;
    if (s.n_logits == 0 || sequence.finish != FinishReason::kNone || s.n_drafts != n_drafts ||
        end != static_cast<int64_t>(sequence.tokens.size()) + n_drafts ||
        (n_drafts > 0 && s.tokens.back() != sequence.draft) ||
        (sequence.drafts && !scheduler_.can_draft_behind(sequence, s)))
      return;
    EXPECT_EQ(s.n_logits, 1 + n_drafts);
    const auto token = static_cast<int32_t>(draw_(0, 1));
    const bool right = n_drafts > 0 && token == s.tokens.back();
    if (n_drafts > 0 && !right) scheduler_.refuse_draft(s.id);
    if (append(s.id, token) && right) append(s.id, static_cast<int32_t>(draw_(0, 1)));
    accepted += right ? 1 : 0;
  }

  void end_pass(const PlanSequence& s) {
    if (s.n_logits == 0 || scheduler_.sequence(s.id).finish != FinishReason::kNone) return;
    scheduler_.set_draft(s.id, static_cast<int32_t>(draw_(0, 1)));
  }

  int64_t accepted = 0;

 private:
  bool append(int32_t id, int32_t token) {
    scheduler_.append(id, token);
    if (draw_(0, 99) == 0)
      scheduler_.finish(id, FinishReason::kCancelled);
    else if (scheduler_.sequence(id).n_generated() == wanted_[id])
      scheduler_.finish(id, FinishReason::kLength);
    return scheduler_.sequence(id).finish == FinishReason::kNone;
  }

  Scheduler& scheduler_;
  Draw& draw_;
  std::map<int32_t, int64_t>& wanted_;
};

void expect_within(const StepPlan& plan, const StepLimits& limits) {
  std::map<int32_t, int64_t> rows, sequences;
  for (const PlanSequence& s : plan.sequences) {
    rows[s.data_rank] += static_cast<int64_t>(s.tokens.size());
    ++sequences[s.data_rank];
  }
  for (const auto& [rank, n] : rows) EXPECT_LE(n, limits.max_rows);
  for (const auto& [rank, n] : sequences) EXPECT_LE(n, limits.max_sequences);
  EXPECT_LE(plan.n_logits(), limits.max_logits);
}

// Random requests, joining and leaving as it goes, with steps under way whose tokens come late.
// Everything a rank relies on is checked at each step; returns how often pages were taken back.
int64_t run_trial(uint64_t seed, const Trial& trial) {
  Draw draw(seed);
  Scheduler scheduler(trial.limits, trial.data, trial.n_blocks, trial.n_ahead);
  CacheModel cache(0), mtp_cache(1);
  std::map<int32_t, int64_t> wanted;
  Tokens tokens(scheduler, draw, wanted);
  std::deque<StepPlan> under_way;
  int steps_under_way = 0;  // draft passes left out
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
        Request r = request(prompt, answer);
        r.draft = trial.drafts && draw(0, 3) > 0;
        wanted[scheduler.submit(std::move(r))] = answer;
        --to_submit;
      }
    }
    StepPlan plan;
    if (steps_under_way < trial.n_ahead) plan = scheduler.schedule();
    if (plan.sequences.empty() && under_way.empty()) {
      EXPECT_TRUE(scheduler.idle()) << "stuck";
      if (!scheduler.idle()) return 0;
    }
    expect_within(plan, trial.limits);
    cache.run(plan, scheduler, trial.n_blocks);
    const bool wait = plan.sequences.empty() || draw(0, 1) == 0;
    if (!plan.sequences.empty()) {
      under_way.push_back(std::move(plan));
      ++steps_under_way;
    }
    if (!wait || under_way.empty()) continue;
    const StepPlan step = std::move(under_way.front());
    under_way.pop_front();
    for (const PlanSequence& s : step.sequences)
      step.draft ? tokens.end_pass(s) : tokens.end_step(s);
    if (step.draft) continue;
    --steps_under_way;
    StepPlan pass = scheduler.plan_drafts(step, draw(0, 3) > 0);
    mtp_cache.run(pass, scheduler, trial.n_blocks);
    if (pass.n_logits() > 0) under_way.push_back(std::move(pass));
  }
  EXPECT_EQ(tokens.accepted > 0, trial.drafts);
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
  for (uint64_t seed = 0; seed < 90; ++seed) {
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

TEST(Scheduler, KeepsItsPromisesWithDrafts) {
  int64_t preempted = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Trial trial;
    trial.limits = limits();
    trial.limits.max_sequences = 1 + static_cast<int64_t>(seed % 7);
    trial.limits.max_rows = seed % 4 == 0 ? 3 : 20;
    trial.data = 1 + static_cast<int>(seed % 3);
    trial.n_ahead = 1 + static_cast<int>(seed % 4);
    trial.n_blocks = 7 + static_cast<int64_t>(seed % 4);
    trial.drafts = true;
    preempted += run_trial(seed, trial);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(preempted, 20) << "the trials are too easy";
}

}  // namespace
}  // namespace glm
