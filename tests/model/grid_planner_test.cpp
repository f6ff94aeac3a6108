// Which grid the planner takes where the answer is clear, and the arithmetic below it.
// SPDX-License-Identifier: MIT
#include "core/model/grid_planner.h"

#include <algorithm>

#include "core/model/memory_plan.h"
#include "tests/model/grid_samples.h"

namespace glm {
namespace {

using Stored = std::map<std::string, StoredType, std::less<>>;

Stored stored_of(const ModelConfig& config) {
  Stored stored;
  for (const TensorSpec& spec : tensor_specs(config, false))
    stored.emplace(spec.name, stored_type(spec, config, default_dtypes(DType::kQ40)));
  return stored;
}

// `world` ranks, `per_host` on each host, one core and thread each.
Machine machine_of(int world, int per_host) {
  Machine machine;
  for (int rank = 0; rank < world; ++rank) machine.hosts.push_back(rank / per_host);
  machine.cores = per_host;
  return machine;
}

bool always(const GridShape&) { return true; }

GridChoice chosen(const ModelConfig& config,
                  const Machine& machine,
                  const Workload& workload = {},
                  const std::function<bool(const GridShape&)>& fits = always) {
  return choose_grid(config, stored_of(config), machine, workload, false, fits);
}

const ModelConfig& air() {
  static const ModelConfig config = parsed(real_config(false));
  return config;
}

ModelConfig dense_model() {
  Json json = golden_config("llama");
  json["hidden_size"] = 4096;
  json["num_hidden_layers"] = 32;
  json["num_attention_heads"] = 32;
  json["num_key_value_heads"] = 8;
  json["head_dim"] = 128;
  json["intermediate_size"] = 14336;
  json["vocab_size"] = 128000;
  return parsed(json);
}

// All choices of 3 of 7 experts, by hand.
TEST(BusiestShare, IsTheMeanOverAllChoices) {
  const int n = 7;
  const ExpertPlacement placement{n, 3, 1};
  double sum = 0;
  int ways = 0;
  for (int a = 0; a < n; ++a)
    for (int b = a + 1; b < n; ++b)
      for (int c = b + 1; c < n; ++c) {
        std::vector<int> counts(3);
        for (const int expert : {a, b, c}) ++counts[size_t(placement.share_of(expert))];
        sum += *std::max_element(counts.begin(), counts.end());
        ++ways;
      }
  EXPECT_NEAR(busiest_share(n, 3, 3), sum / ways, 1e-12);
  EXPECT_NEAR(busiest_share(128, 8, 1), 8, 1e-12);
  EXPECT_NEAR(busiest_share(8, 8, 8), 1, 1e-12);
  EXPECT_GT(busiest_share(128, 8, 2), 4.9);
  EXPECT_LT(busiest_share(128, 8, 2), 5.2);
}

TEST(LegalGridShapes, AreThoseThatCompleteGridAccepts) {
  for (const bool is_moe : {false, true})
    for (int world = 1; world <= 24; ++world) {
      size_t expected = 0;
      for (const GridShape& shape : legal_grids(world, is_moe))
        if (shape.world() == world) ++expected;
      const std::vector<GridShape> shapes = legal_grid_shapes(world, is_moe, false);
      EXPECT_EQ(shapes.size(), expected) << world;
      for (const GridShape& shape : shapes) {
        const GridRequest request{shape.data, shape.pipeline, shape.tensor, shape.expert};
        EXPECT_EQ(complete_grid(request, world, is_moe), shape);
      }
      for (const GridShape& shape : legal_grid_shapes(world, is_moe, true))
        EXPECT_LE(shape.expert, shape.tensor);
    }
}

TEST(ChooseGrid, OneSequenceOnOneHostSplitsMatrices) {
  for (const int world : {2, 4, 8}) {
    const GridShape shape = chosen(air(), machine_of(world, world)).shape;
    EXPECT_EQ(shape.tensor, world) << shape.text();
  }
}

TEST(ChooseGrid, SlowLinksKeepTensorGroupsOnAHost) {
  Machine machine = machine_of(8, 2);
  machine.remote_latency = 5e-3;
  const GridShape shape = chosen(air(), machine).shape;
  EXPECT_LE(shape.tensor, 2) << shape.text();
  EXPECT_LE(shape.expert, 2) << shape.text();
}

TEST(ChooseGrid, RanksBeyondTheCoresGainNothingFromMoreSplitting) {
  Machine machine = machine_of(4, 4);
  machine.cores = 2;
  const GridShape shape = chosen(air(), machine).shape;
  EXPECT_EQ(shape.data, 1) << shape.text();
  EXPECT_EQ(shape.pipeline, 2) << shape.text();
  EXPECT_EQ(shape.tensor, 2) << shape.text();
}

TEST(ChooseGrid, ManySequencesKeepAllRanksBusy) {
  Workload workload;
  workload.sequences = 64;
  const Machine machine = machine_of(8, 1);  // slow messages between all ranks
  const GridEstimate best = chosen(air(), machine, workload).ranked.front();
  const GridEstimate alone =
      estimate_grid(air(), model_costs(air(), stored_of(air())), {1, 1, 8, 1}, machine, workload);
  EXPECT_LE(best.total_seconds, alone.total_seconds);
  EXPECT_GT(best.shape.data * best.shape.pipeline, 1) << best.shape.text();
}

TEST(ChooseGrid, MemoryForcesAGridWithoutCopies) {
  Workload workload;
  workload.sequences = 64;
  PlanRequest request;
  const auto largest = [&](const GridShape& shape) {
    int64_t most = 0;
    for (const RankPlan& rank : plan_memory(air(), shape, request).ranks)
      most = std::max(most, rank.total_bytes());
    return most;
  };
  const auto small = [&](const GridShape& shape) { return largest(shape) < 9'000'000'000; };
  const GridChoice choice = chosen(air(), machine_of(8, 8), workload, small);
  EXPECT_TRUE(small(choice.shape)) << choice.shape.text();
  // Only a pipeline fits: the others are refused one after the other.
  const GridChoice forced = chosen(
      air(), machine_of(4, 4), {}, [](const GridShape& shape) { return shape.pipeline == 4; });
  EXPECT_EQ(forced.shape, (GridShape{1, 4, 1, 1}));
  const GridChoice none =
      chosen(air(), machine_of(4, 4), {}, [](const GridShape&) { return false; });
  EXPECT_EQ(none.shape, complete_grid({}, 4, true));
  EXPECT_NE(none.reason.find("no grid of 4 ranks fits"), std::string::npos) << none.reason;
}

TEST(ChooseGrid, AnyNumberOfRanks) {
  for (const ModelConfig& config : {air(), dense_model()})
    for (const int world : {1, 3, 5, 6, 7, 12, 97}) {
      const GridChoice choice = chosen(config, machine_of(world, 8));
      EXPECT_EQ(choice.shape.world(), world);
      if (!config.is_moe()) {
        EXPECT_EQ(choice.shape.expert, 1);
      }
      EXPECT_NE(choice.reason.find(choice.shape.text()), std::string::npos) << choice.reason;
    }
}

TEST(ChooseGrid, IsNeverMoreThanFivePercentFromTheBest) {
  for (const ModelConfig& config : {air(), dense_model()}) {
    const ModelCosts costs = model_costs(config, stored_of(config));
    for (const int world : {2, 4, 6, 8, 16})
      for (const int64_t sequences : {1, 4, 32}) {
        Workload workload;
        workload.sequences = sequences;
        const Machine machine = machine_of(world, 4);
        const GridChoice choice = chosen(config, machine, workload);
        const GridEstimate mine = estimate_grid(config, costs, choice.shape, machine, workload);
        for (const GridShape& shape : legal_grid_shapes(world, config.is_moe(), false))
          EXPECT_LE(mine.total_seconds,
                    1.05 * estimate_grid(config, costs, shape, machine, workload).total_seconds)
              << shape.text();
      }
  }
}

TEST(ChooseGrid, TheDefaultIsTakenWhereItIsAsGood) {
  Machine machine = machine_of(2, 2);
  machine.local_latency = 0;
  const GridChoice dense = chosen(dense_model(), machine);
  EXPECT_EQ(dense.shape, complete_grid({}, 2, false));
}

TEST(ChooseGrid, LargeJobsArePlannedQuickly) {
  EXPECT_EQ(chosen(air(), machine_of(1024, 8)).shape.world(), 1024);
}

TEST(RankingText, ShowsFiveGridsAndTheChosenOne) {
  const GridChoice choice = chosen(air(), machine_of(4, 4));
  const std::string text = ranking_text(choice);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6) << text;
  EXPECT_NE(text.find("chosen"), std::string::npos) << text;
}

}  // namespace
}  // namespace glm
