// Ranks that can hold unequal amounts compute what equal ones do. SPDX-License-Identifier: MIT
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/model_run.h"

namespace glm {
namespace {

using testing_support::Golden;
using testing_support::run_on_threads;
using testing_support::RunOptions;
using testing_support::RunResult;

namespace fs = std::filesystem;

struct Case {
  GridShape shape;
  Capacities capacities;
  ExchangeKind exchange = ExchangeKind::kAuto;
};

std::vector<Case> cases() {
  const ExchangeKind reduce = ExchangeKind::kReduce;
  const ExchangeKind all_to_all = ExchangeKind::kAllToAll;
  return {
      {{1, 3, 1, 1}, {4, 1, 1}},
      {{1, 1, 3, 3}, {1, 1, 2}, reduce},
      {{1, 1, 3, 3}, {1, 1, 2}, all_to_all},
      {{3, 1, 1, 3}, {1, 1, 2}},
      {{1, 2, 2, 2}, {1, 1, 1, 3}, reduce},
      {{1, 2, 2, 2}, {1, 1, 1, 3}, all_to_all},
      {{2, 1, 2, 4}, {1, 2, 4, 1}},
      {{2, 1, 2, 2}, {3, 1, 1, 3}, all_to_all},  // copies with borders of their own
      {{1, 1, 4, 2}, {1, 1, 2, 2}, all_to_all},
      {{1, 1, 3, 3}, {1, 1000, 1000}, all_to_all},  // a share without experts
  };
}

class UnequalRanks : public testing::TestWithParam<Case> {
 protected:
  RunOptions options() const {
    RunOptions out;
    out.shape = GetParam().shape;
    out.capacities = GetParam().capacities;
    out.exchange = GetParam().exchange;
    return out;
  }
  fs::path folder_ = fs::path(GLM_TEST_DATA) / "golden" / "glm4_moe_air";
  Golden golden_ = testing_support::read_golden(folder_);
};

TEST_P(UnequalRanks, LogitsAreThoseOfOneRank) {
  const fs::path model = testing_support::converted(folder_, DType::kF32);
  const auto request = testing_support::golden_request(golden_);
  const RunResult one = run_on_threads(model, {}, {request});
  const RunResult many = run_on_threads(model, options(), {request});
  EXPECT_EQ(many.answers, one.answers);
  ASSERT_EQ(many.logits[0].size(), one.logits[0].size());
  double worst = 0;
  for (size_t i = 0; i < one.logits[0].size(); ++i)
    worst = std::max(worst, std::abs(double{many.logits[0][i]} - double{one.logits[0][i]}));
  EXPECT_LE(worst, 1e-4 * golden_.range);
}

TEST_P(UnequalRanks, BitsAreThoseOfOneRankWhenReproducible) {
  const fs::path model = testing_support::converted(folder_, DType::kQ40);
  const auto request = testing_support::golden_request(golden_);
  RunOptions alone;
  alone.numerics = Numerics::kReproducible;
  RunOptions all = options();
  all.numerics = Numerics::kReproducible;
  const RunResult one = run_on_threads(model, alone, {request});
  const RunResult many = run_on_threads(model, all, {request});
  EXPECT_EQ(many.answers, one.answers);
  EXPECT_EQ(many.logits, one.logits);
}

// The division is uneven in fact: equal ranks hold other bytes.
TEST_P(UnequalRanks, RanksHoldOtherBytesThanEqualOnes) {
  const fs::path model = testing_support::converted(folder_, DType::kF32);
  auto request = testing_support::golden_request(golden_);
  request.max_tokens = 1;
  RunOptions equal = options();
  equal.capacities.clear();
  EXPECT_NE(run_on_threads(model, options(), {request}).weight_bytes,
            run_on_threads(model, equal, {request}).weight_bytes);
}

INSTANTIATE_TEST_SUITE_P(Grids, UnequalRanks, testing::ValuesIn(cases()), [](const auto& one) {
  const GridShape& s = one.param.shape;
  return fmt::format(
      "Case{}Data{}Pipeline{}Tensor{}Expert{}", one.index, s.data, s.pipeline, s.tensor, s.expert);
});

}  // namespace
}  // namespace glm
