// Layers and experts in proportion to what the ranks can hold, and plans that keep their caps.
// SPDX-License-Identifier: MIT
#include "core/model/division.h"

#include <numeric>

#include "core/model/memory_plan.h"
#include "tests/model/grid_samples.h"

namespace glm {
namespace {

const DTypeChoice kQ40 = default_dtypes(DType::kQ40);

std::vector<int64_t> layer_counts(const Division& division) {
  std::vector<int64_t> counts;
  for (const Range& stage : division.stages) counts.push_back(stage.size());
  return counts;
}

std::vector<int> expert_counts(const ExpertPlacement& placement) {
  std::vector<int> counts;
  for (int s = 0; s < placement.n_shares; ++s)
    counts.push_back(placement.begin(s + 1) - placement.begin(s));
  return counts;
}

TEST(DivideModel, EqualCapacitiesAreTheEvenDivision) {
  for (const ModelConfig& config : odd_models())
    for (const GridShape& shape : legal_grids(8, config.is_moe())) {
      const Division even = divide_model(config, kQ40, shape);
      const Capacities alike(static_cast<size_t>(shape.world()), 24'000'000'000);
      const Division given = divide_model(config, kQ40, shape, alike);
      EXPECT_EQ(even.stages, given.stages) << shape.text();
      EXPECT_EQ(even.stages, stage_layers(config, kQ40, shape.pipeline));
      for (size_t g = 0; g < even.experts.size(); ++g) {
        EXPECT_EQ(even.experts[g].begins, given.experts[g].begins);
        EXPECT_EQ(even.experts[g].begins,
                  ExpertPlacement(config.router.n_experts, shape.expert, 1).begins);
      }
    }
}

TEST(DivideModel, ExpertsFollowCapacities) {
  const ModelConfig air = parsed(real_config(false));
  const auto counts = [&](const GridShape& shape, const Capacities& capacities, size_t group) {
    return expert_counts(divide_model(air, kQ40, shape, capacities).experts[group]);
  };
  EXPECT_EQ(counts({1, 1, 3, 3}, {1, 1, 2}, 0), (std::vector<int>{32, 32, 64}));
  EXPECT_EQ(counts({3, 1, 1, 3}, {1, 1, 2}, 0), (std::vector<int>{32, 32, 64}));
  // Two ranks slice each expert: the smaller one of a share decides.
  EXPECT_EQ(counts({1, 1, 4, 2}, {1, 9, 3, 5}, 0), (std::vector<int>{32, 96}));
  // Stages have borders of their own.
  EXPECT_EQ(counts({1, 2, 2, 2}, {24, 24, 24, 72}, 0), (std::vector<int>{64, 64}));
  EXPECT_EQ(counts({1, 2, 2, 2}, {24, 24, 24, 72}, 1), (std::vector<int>{32, 96}));
}

TEST(DivideModel, LayersFollowCapacities) {
  ModelConfig air = parsed(real_config(false));
  const auto stages = [&](const GridShape& shape, const Capacities& capacities) {
    return layer_counts(divide_model(air, kQ40, shape, capacities));
  };
  // 46 layers, of which the first is dense and small; embedding and head count.
  EXPECT_EQ(stages({1, 3, 1, 1}, {1, 1, 2}), (std::vector<int64_t>{12, 11, 23}));
  EXPECT_EQ(stages({1, 2, 2, 2}, {24, 24, 24, 72}), (std::vector<int64_t>{16, 30}));
  // Expert columns are split evenly, so the larger rank of the second stage cannot help.
  EXPECT_EQ(stages({1, 2, 2, 1}, {24, 24, 24, 72}), stages({1, 2, 2, 1}, {}));
  const std::vector<int64_t> tiny = stages({1, 3, 1, 1}, {1, 1'000'000'000, 1'000'000'000});
  EXPECT_EQ(tiny[0], 0);  // it still has to hold the embedding
}

// Max over stages of bytes per capacity can not be lowered by moving any border by one layer.
TEST(DivideModel, NoBorderCanMove) {
  const ModelConfig air = parsed(real_config(false));
  for (const std::vector<double>& capacities :
       std::vector<std::vector<double>>{{1, 1, 2}, {3, 1}, {1, 2, 3, 4, 5}, {1, 1, 1, 0.2}}) {
    const auto n = static_cast<int>(capacities.size());
    const std::vector<Range> stages = stage_layers(air, kQ40, n, capacities);
    const auto load = [&](const std::vector<Range>& ranges) {
      std::vector<double> bytes(ranges.size());
      for (const TensorSpec& spec : tensor_specs(air, false)) {
        size_t at = 0;
        if (spec.layer < 0)
          at = spec.kind == Kind::kEmbedding ? 0 : ranges.size() - 1;
        else
          while (spec.layer >= ranges[at].end) ++at;
        bytes[at] += static_cast<double>(stored_bytes(spec, stored_type(spec, air, kQ40)));
      }
      double most = 0;
      for (size_t s = 0; s < bytes.size(); ++s) most = std::max(most, bytes[s] / capacities[s]);
      return most;
    };
    const double best = load(stages);
    for (size_t border = 0; border + 1 < stages.size(); ++border)
      for (const int64_t move : {-1, 1}) {
        std::vector<Range> moved = stages;
        moved[border].end += move;
        moved[border + 1].begin += move;
        if (moved[border].size() < 0 || moved[border + 1].size() < 0) continue;
        EXPECT_GE(load(moved), best * (1 - 1e-12)) << n << " stages, border " << border;
      }
  }
}

TEST(ExpertBorders, EachShareIsWithinOneOfItsProportion) {
  const std::vector<double> weights = {1, 1, 2, 0.5, 7};
  for (int n = 0; n <= 200; ++n) {
    const std::vector<int> borders = expert_borders(n, weights);
    ASSERT_EQ(borders.size(), weights.size() + 1);
    EXPECT_EQ(borders.front(), 0);
    EXPECT_EQ(borders.back(), n);
    for (size_t s = 0; s < weights.size(); ++s)
      EXPECT_NEAR(borders[s + 1] - borders[s], n * weights[s] / 11.5, 1.0) << n << " " << s;
  }
}

TEST(ExpertBorders, LimitsAreKeptWhileThereIsRoom) {
  EXPECT_EQ(expert_borders(10, {1, 1}, {3, 20}), (std::vector<int>{0, 3, 10}));
  EXPECT_EQ(expert_borders(10, {1, 1, 1}, {0, 9, 4}), (std::vector<int>{0, 0, 6, 10}));
  EXPECT_EQ(expert_borders(10, {1, 1}, {4, 4}).back(), 10);  // does not fit: nothing is lost
}

TEST(MeasuredCapacities, SharesAHostAndIgnoresSmallDifferences) {
  EXPECT_EQ(measured_capacities({"a", "a", "b"}, {80, 81, 60}), (Capacities{40, 40, 60}));
  EXPECT_TRUE(measured_capacities({"a", "a", "b"}, {80, 80, 41}).empty());
  EXPECT_TRUE(measured_capacities({"a"}, {80}).empty());
  EXPECT_TRUE(measured_capacities({}, {}).empty());
  EXPECT_EQ(measured_capacities({"a", "b"}, {0, 100}), (Capacities{1, 100}));
}

// Every tensor's bytes are in the plans once, copies counted apart, whatever the borders.
TEST(PlanDivision, WeightsAddUpForUnequalRanks) {
  for (const ModelConfig& config : odd_models())
    for (const GridShape& shape : legal_grids(8, config.is_moe())) {
      Capacities capacities;
      for (int r = 0; r < shape.world(); ++r) capacities.push_back(1 + (r * 5) % 4);
      PlanRequest request;
      request.kv_blocks = 2;
      const MemoryPlan plan =
          plan_division(config, divide_model(config, request.dtypes, shape, capacities), request);
      int64_t held = 0;
      int64_t copies = 0;
      for (const RankPlan& rank : plan.ranks) {
        held += rank.weight_bytes();
        copies += rank.replicated_bytes;
      }
      EXPECT_EQ(held, plan.model_bytes + copies) << shape.text();
    }
}

constexpr int64_t kBuffers = 900'000'000;

MemoryPlan plan_of(const ModelConfig& config, const Division& division) {
  PlanRequest request;
  request.kv_blocks = 512;
  MemoryPlan plan = plan_division(config, division, request);
  for (RankPlan& rank : plan.ranks) rank.buffer_bytes = kBuffers;
  return plan;
}

FittedPlan fitted(const ModelConfig& config, const GridShape& shape, const Capacities& caps) {
  return fit_plan(config, PlanRequest().dtypes, shape, caps, [&](const Division& division) {
    return plan_of(config, division);
  });
}

TEST(FitPlan, ProportionsWhereTheyFit) {
  const ModelConfig air = parsed(real_config(false));
  const FittedPlan roomy =
      fitted(air, {1, 1, 3, 3}, {80'000'000'000, 80'000'000'000, 160'000'000'000});
  EXPECT_EQ(expert_counts(roomy.division.experts[0]), (std::vector<int>{32, 32, 64}));
  EXPECT_EQ(rank_over_capacity(roomy.plan, {80'000'000'000, 80'000'000'000, 160'000'000'000}), -1);
}

// About 61 GB of weights, 1.5 GB of cache per whole model, buffers on each rank.
TEST(FitPlan, TightCapsAreKept) {
  const ModelConfig air = parsed(real_config(false));
  const std::vector<std::pair<GridShape, Capacities>> cases = {
      {{1, 1, 3, 3}, {10, 20, 40}},  // attention alone takes much of the first
      {{1, 3, 1, 1}, {10, 20, 40}},
      {{1, 2, 2, 2}, {12, 12, 15, 31}},
      {{2, 1, 1, 2}, {24, 52}},
      {{1, 1, 4, 2}, {10, 11, 27, 27}},
  };
  for (const auto& [shape, gigabytes] : cases) {
    Capacities capacities;
    for (const int64_t gb : gigabytes) capacities.push_back(gb * 1'000'000'000);
    const FittedPlan out = fitted(air, shape, capacities);
    EXPECT_EQ(rank_over_capacity(out.plan, capacities), -1) << shape.text();
    for (size_t r = 0; r < capacities.size(); ++r)
      EXPECT_LE(out.plan.ranks[r].total_bytes(), capacities[r]) << shape.text() << " rank " << r;
  }
}

TEST(FitPlan, TooLittleIsNamed) {
  const ModelConfig air = parsed(real_config(false));
  const Capacities capacities = {40'000'000'000, 5'000'000'000};
  const FittedPlan out = fitted(air, {1, 1, 2, 1}, capacities);
  EXPECT_EQ(rank_over_capacity(out.plan, capacities), 1);
}

}  // namespace
}  // namespace glm
