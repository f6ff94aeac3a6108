// Drafts without a model: whatever was guessed, tokens are distributed as the model wants them
// (chi-square); the judge keeps drafts where they pay. SPDX-License-Identifier: MIT
#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "core/engine/draft_judge.h"
#include "core/engine/sampler.h"

namespace glm {
namespace {

using Probabilities = std::vector<double>;  // by token

std::vector<Candidate> candidates_of(const Probabilities& probabilities) {
  std::vector<Candidate> out;
  for (size_t i = 0; i < probabilities.size(); ++i)
    if (probabilities[i] > 0) out.push_back({static_cast<int32_t>(i), probabilities[i]});
  return out;
}

// 99.9 % quantile by Wilson and Hilferty (1931).
double chi_square_limit(double k) {
  return k * std::pow(1 - 2 / (9 * k) + 3.09 * std::sqrt(2 / (9 * k)), 3);
}

struct DraftCase {
  const char* name;
  Probabilities wanted;
  Probabilities guess;
};

class VerifyDraft : public testing::TestWithParam<DraftCase> {};

TEST_P(VerifyDraft, GivesWhatIsWanted) {
  const auto wanted = candidates_of(GetParam().wanted);
  const auto guess = candidates_of(GetParam().guess);
  constexpr int kDraws = 20000;
  std::map<int32_t, int> seen;
  int accepted = 0;
  for (uint64_t step = 0; step < kDraws; ++step) {
    const int32_t draft = draw(guess, 9, "draft", step);
    const Verdict verdict = verify_draft(wanted, guess, draft, 9, step);
    if (verdict.accepted) {
      EXPECT_EQ(verdict.token, draft);
    }
    accepted += verdict.accepted ? 1 : 0;
    ++seen[verdict.token];
  }
  double chi = 0, overlap = 0;
  for (size_t i = 0; i < GetParam().wanted.size(); ++i) {
    const double mean = GetParam().wanted[i] * kDraws;
    const int n = seen[static_cast<int32_t>(i)];
    overlap += std::min(GetParam().wanted[i], GetParam().guess[i]);
    if (mean == 0)
      EXPECT_EQ(n, 0) << "token " << i;
    else
      chi += (n - mean) * (n - mean) / mean;
  }
  EXPECT_LT(chi, chi_square_limit(static_cast<double>(wanted.size()) - 1 + 1e-9));
  // As often as any rule that keeps the distribution can: the sum of min(p, q).
  EXPECT_NEAR(accepted, overlap * kDraws, 4 * std::sqrt(kDraws * 0.25));
}

INSTANTIATE_TEST_SUITE_P(
    Guesses,
    VerifyDraft,
    testing::Values(DraftCase{"right", {0.5, 0.3, 0.2}, {0.5, 0.3, 0.2}},
                    DraftCase{"near", {0.5, 0.3, 0.2}, {0.4, 0.3, 0.3}},
                    DraftCase{"narrow", {0.4, 0.3, 0.2, 0.1}, {0, 0, 1, 0}},
                    DraftCase{"elsewhere", {0.7, 0.3, 0, 0}, {0, 0, 0.5, 0.5}},
                    DraftCase{"wide", {0.9, 0.1, 0, 0}, {0.25, 0.25, 0.25, 0.25}},
                    DraftCase{"reversed", {0.6, 0.25, 0.1, 0.05}, {0.05, 0.1, 0.25, 0.6}}),
    [](const auto& c) { return c.param.name; });

TEST(VerifyDraft, OfTwoSureOnesTheModelWins) {
  const std::vector<Candidate> seven = {{7, 1.0}}, eight = {{8, 1.0}};
  for (uint64_t step = 0; step < 50; ++step) {
    EXPECT_TRUE(verify_draft(seven, seven, 7, 1, step).accepted);
    const Verdict verdict = verify_draft(seven, eight, 8, 1, step);
    EXPECT_FALSE(verdict.accepted);
    EXPECT_EQ(verdict.token, 7);
  }
}

TEST(VerifyDraft, OneSeedOneVerdict) {
  const auto wanted = candidates_of({0.5, 0.3, 0.2});
  const auto guess = candidates_of({0.2, 0.3, 0.5});
  int differ = 0;
  for (uint64_t step = 0; step < 100; ++step) {
    const Verdict one = verify_draft(wanted, guess, 2, 3, step);
    const Verdict same = verify_draft(wanted, guess, 2, 3, step);
    EXPECT_EQ(one.token, same.token);
    EXPECT_EQ(one.accepted, same.accepted);
    differ += one.token != verify_draft(wanted, guess, 2, 4, step).token ? 1 : 0;
  }
  EXPECT_GT(differ, 20);
}

// Decode steps as the judge wants them, until `steps` are over or it gives up. Seconds of a step
// with a draft, of its pass, of a plain one; tokens of a step with a draft.
int run_judge(DraftJudge& judge, int steps, double with, double pass, double plain, double tokens) {
  double owed = 0;
  int drafted = 0;
  for (int i = 0; i < steps && !judge.gave_up(); ++i) {
    if (!judge.wants_drafts()) {
      judge.add_step(plain, 1, false);
      continue;
    }
    ++drafted;
    owed += tokens;
    const auto n = static_cast<int64_t>(owed);
    owed -= static_cast<double>(n);
    judge.add_pass(pass);
    judge.add_step(with, n, true);
  }
  return drafted;
}

TEST(DraftJudge, KeepsDraftsThatPay) {
  DraftJudge judge;
  EXPECT_TRUE(judge.wants_drafts());
  const int drafted = run_judge(judge, 2000, 1.2, 0.1, 1.0, 1.75);
  EXPECT_FALSE(judge.gave_up());
  EXPECT_NEAR(judge.gain(), 1.75 / 1.3, 0.1);
  EXPECT_GT(drafted, 1950) << "trials without drafts become rare";
}

TEST(DraftJudge, GivesUpAfterOneTrial) {
  DraftJudge judge;
  // 1.4 tokens for the price of 1.5.
  const int drafted = run_judge(judge, 2000, 1.3, 0.2, 1.0, 1.4);
  EXPECT_TRUE(judge.gave_up());
  EXPECT_FALSE(judge.wants_drafts());
  EXPECT_EQ(drafted, DraftJudge::kDraftedSteps);
  EXPECT_LT(judge.gain(), 1);
}

TEST(DraftJudge, NoticesWhenTheTextChanges) {
  DraftJudge judge;
  run_judge(judge, 200, 1.2, 0.1, 1.0, 1.9);
  EXPECT_FALSE(judge.gave_up());
  run_judge(judge, 2000, 1.2, 0.1, 1.0, 1.05);
  EXPECT_TRUE(judge.gave_up());
}

TEST(DraftJudge, ForgivesOneSlowStep) {
  DraftJudge judge;
  judge.add_step(500.0, 2, true);
  run_judge(judge, 200, 1.2, 0.1, 1.0, 1.75);
  EXPECT_FALSE(judge.gave_up());
  EXPECT_NEAR(judge.gain(), 1.75 / 1.3, 0.1);
}

}  // namespace
}  // namespace glm
