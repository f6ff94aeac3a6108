// Bytes of all ranks add up: the model plus what is held twice. SPDX-License-Identifier: MIT
#include "core/model/memory_plan.h"

#include "tests/model/grid_samples.h"

namespace glm {
namespace {

TEST(MemoryPlan, RanksAddUpToTheModelAndTheCopies) {
  for (const ModelConfig& config : odd_models())
    for (const GridShape& shape : legal_grids(8, config.is_moe()))
      for (const DType body : {DType::kQ40, DType::kF32})
        for (const Numerics numerics : {Numerics::kDefault, Numerics::kReproducible}) {
          PlanRequest request;
          request.dtypes = default_dtypes(body);
          request.numerics = numerics;
          const MemoryPlan plan = plan_memory(config, shape, request);
          ASSERT_EQ(static_cast<int>(plan.ranks.size()), shape.world());
          int64_t weights = 0;
          int64_t replicated = 0;
          for (const RankPlan& rank : plan.ranks) {
            EXPECT_GE(rank.replicated_bytes, 0);
            EXPECT_LE(rank.replicated_bytes, rank.weight_bytes());
            weights += rank.weight_bytes();
            replicated += rank.replicated_bytes;
          }
          ASSERT_EQ(weights, plan.model_bytes + replicated) << shape.text();
          ASSERT_EQ(plan.ranks[0].replicated_bytes, 0);
        }
}

// The MTP layer on the last stage, with the embedding and a layer of the cache.
TEST(MemoryPlan, AnMtpLayerThatIsLoadedCounts) {
  const ModelConfig config = odd_models()[0];
  ASSERT_EQ(config.family, Family::kGlm4Moe);
  for (const GridShape& shape : legal_grids(8, true)) {
    SCOPED_TRACE(shape.text());
    PlanRequest request;
    request.dtypes = default_dtypes(DType::kQ40);
    request.kv_blocks = 16;
    request.with_mtp = true;
    const MemoryPlan without = plan_memory(config, shape, request);
    const MemoryPlan with =
        plan_division(config, divide_model(config, request.dtypes, shape, {}, true), request);
    EXPECT_TRUE(with.mtp_loaded);
    int64_t weights = 0, replicated = 0, mtp = 0, cache = 0, cache_without = 0;
    for (size_t r = 0; r < with.ranks.size(); ++r) {
      const RankPlan& rank = with.ranks[r];
      weights += rank.weight_bytes();
      replicated += rank.replicated_bytes;
      cache += rank.kv_bytes;
      cache_without += without.ranks[r].kv_bytes;
      const bool last = rank.coord.pipeline + 1 == shape.pipeline;
      EXPECT_EQ(rank.weights.contains(Kind::kMtp), last);
      if (last) mtp += rank.weights.at(Kind::kMtp);
    }
    EXPECT_EQ(weights, with.model_bytes + replicated);
    EXPECT_EQ(with.model_bytes, without.model_bytes + with.mtp_bytes);
    EXPECT_GE(mtp, with.mtp_bytes);
    EXPECT_EQ(cache * config.n_layers, cache_without * (config.n_layers + 1));
    EXPECT_NE(plan_text(config, with).find("loaded to draft tokens"), std::string::npos);
  }
}

TEST(MemoryPlan, OneRankHoldsEverythingOnce) {
  const ModelConfig air = parsed(real_config(false));
  PlanRequest request;
  request.dtypes = default_dtypes(DType::kQ40);
  request.kv_blocks = 512;  // 8192 positions
  request.with_mtp = true;
  const MemoryPlan plan = plan_memory(air, {1, 1, 1, 1}, request);
  EXPECT_EQ(plan.ranks[0].weight_bytes(), plan.model_bytes);
  EXPECT_EQ(plan.ranks[0].replicated_bytes, 0);
  // 94,208 values per token in f16.
  EXPECT_EQ(plan.ranks[0].kv_bytes, int64_t{94'208} * 2 * 8192);
  EXPECT_EQ(plan.ranks[0].total_bytes(), plan.model_bytes + plan.ranks[0].kv_bytes);
  EXPECT_NEAR(static_cast<double>(plan.model_bytes) / 1e9, 60.8, 0.05);
  EXPECT_NEAR(static_cast<double>(plan.mtp_bytes) / 1e9, 1.34, 0.05);
  EXPECT_TRUE(plan.mtp_believed);
}

TEST(MemoryPlan, CacheFollowsHeadsAndLayers) {
  const ModelConfig air = parsed(real_config(false));
  PlanRequest request;
  request.kv_blocks = 64;
  const int64_t whole = plan_memory(air, {1, 1, 1, 1}, request).ranks[0].kv_bytes;
  int64_t sum = 0;
  for (const RankPlan& rank : plan_memory(air, {1, 2, 4, 4}, request).ranks) sum += rank.kv_bytes;
  EXPECT_EQ(sum, whole);
  // 16 tensor ranks over 8 key-value heads: each head is held twice.
  sum = 0;
  for (const RankPlan& rank : plan_memory(air, {1, 1, 16, 16}, request).ranks) sum += rank.kv_bytes;
  EXPECT_EQ(sum, 2 * whole);
}

TEST(MemoryPlan, TypesOfTheFileWin) {
  const ModelConfig config = odd_models()[0];
  PlanRequest request;
  request.dtypes = default_dtypes(DType::kQ40);
  const int64_t before = plan_memory(config, {1, 1, 1, 1}, request).model_bytes;
  request.stored["embedding"] = {DType::kF32, Packing::kRows};
  const int64_t after = plan_memory(config, {1, 1, 1, 1}, request).model_bytes;
  EXPECT_EQ(after - before,
            value_bytes(DType::kF32, config.vocab, config.hidden) -
                value_bytes(DType::kQ80, config.vocab, config.hidden) -
                scale_bytes(DType::kQ80, config.vocab, config.hidden));
}

TEST(MemoryPlan, TextSaysTheTotal) {
  const ModelConfig air = parsed(real_config(false));
  PlanRequest request;
  request.with_mtp = true;
  const MemoryPlan plan = plan_memory(air, {1, 2, 2, 2}, request);
  const std::string text = plan_text(air, plan);
  EXPECT_NE(text.find("\nweights total 60.8"), std::string::npos) << text;
  EXPECT_NE(text.find(plan.shape.text()), std::string::npos) << text;
  EXPECT_NE(text.find("num_nextn_predict_layers is believed"), std::string::npos) << text;
  EXPECT_NE(text.find("64-127"), std::string::npos) << text;
}

}  // namespace
}  // namespace glm
