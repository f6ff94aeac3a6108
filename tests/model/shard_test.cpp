// Slabs of all ranks of all small grids: each element of each tensor is held exactly as often as it
// should be. SPDX-License-Identifier: MIT
#include <algorithm>
#include <numeric>

#include "core/model/division.h"
#include "parallel/process_grid.h"
#include "tests/model/grid_samples.h"

namespace glm {
namespace {

TEST(EvenShare, CoversInOrderAndEvenly) {
  for (const int64_t count : {0, 1, 15, 16, 17, 100, 1408, 10944})
    for (const int64_t unit : {1, 16, 32})
      for (int n = 1; n <= 9; ++n) {
        int64_t at = 0;
        int64_t least = count;
        int64_t most = 0;
        for (int r = 0; r < n; ++r) {
          const Range share = even_share(count, unit, r, n);
          EXPECT_EQ(share.begin, at);
          EXPECT_TRUE(share.end == count || share.end % unit == 0);
          at = share.end;
          least = std::min(least, share.size());
          most = std::max(most, share.size());
        }
        EXPECT_EQ(at, count);
        EXPECT_LT(most - least, 2 * unit) << count << " in " << unit << " over " << n;
      }
}

TEST(HeadShare, QueryHeadsFindTheirKeys) {
  for (const auto& [heads, kv] : {std::pair{96, 8}, {6, 2}, {12, 4}, {5, 5}, {7, 1}})
    for (int n = 1; n <= 12; ++n) {
      int64_t at = 0;
      for (int t = 0; t < n; ++t) {
        const HeadShare share = head_share(heads, kv, t, n);
        EXPECT_EQ(share.query.begin, at);
        at = share.query.end;
        const int ratio = heads / kv;
        for (int64_t q = share.query.begin; q < share.query.end; ++q) {
          EXPECT_GE(q / ratio, share.key_value.begin);
          EXPECT_LT(q / ratio, share.key_value.end);
        }
        if (share.query.size() == 0) {
          EXPECT_EQ(share.key_value.size(), 0);
        } else {
          // No key-value head that no query head uses.
          EXPECT_EQ(share.query.begin / ratio, share.key_value.begin);
          EXPECT_EQ((share.query.end - 1) / ratio + 1, share.key_value.end);
        }
        if (n <= kv) {
          EXPECT_EQ(share.query.begin % ratio, 0);
        }
      }
      EXPECT_EQ(at, heads);
    }
}

// The heaviest stage of the best division, by trying all of them.
int64_t best_stage(const std::vector<int64_t>& layers, int64_t first, int64_t last, int stages) {
  const auto n = static_cast<int64_t>(layers.size());
  std::vector<int64_t> best(static_cast<size_t>(n) + 1, INT64_MAX);
  for (int stage = 0; stage < stages; ++stage) {
    std::vector<int64_t> next(best.size(), INT64_MAX);
    for (int64_t from = 0; from <= n; ++from) {
      const int64_t before = stage == 0 ? (from == 0 ? 0 : INT64_MAX) : best[size_t(from)];
      if (before == INT64_MAX) continue;
      int64_t bytes = (stage == 0 ? first : 0) + (stage == stages - 1 ? last : 0);
      for (int64_t to = from; to <= n; ++to) {
        if (to > from) bytes += layers[size_t(to - 1)];
        next[size_t(to)] = std::min(next[size_t(to)], std::max(before, bytes));
      }
    }
    best = next;
  }
  return best.back();
}

TEST(StageLayers, NoDivisionHasALighterHeaviestStage) {
  std::vector<ModelConfig> configs = odd_models();
  configs.push_back(parsed(golden_config("glm4_moe_air")));
  configs.push_back(parsed(real_config(false)));
  for (const ModelConfig& config : configs) {
    const DTypeChoice dtypes = default_dtypes(DType::kQ40);
    std::vector<int64_t> layers(static_cast<size_t>(config.n_layers));
    int64_t first = 0;
    int64_t last = 0;
    for (const TensorSpec& spec : tensor_specs(config, false)) {
      const int64_t bytes = stored_bytes(spec, stored_type(spec, config, dtypes));
      if (spec.layer >= 0) layers[size_t(spec.layer)] += bytes;
      if (spec.name == "embedding") first += bytes;
      if (spec.layer < 0 && (spec.name != "embedding" || config.tied)) last += bytes;
    }
    for (int stages = 1; stages <= 9; ++stages) {
      const std::vector<Range> ranges = stage_layers(config, dtypes, stages);
      ASSERT_EQ(static_cast<int>(ranges.size()), stages);
      int64_t at = 0;
      int64_t heaviest = 0;
      for (int s = 0; s < stages; ++s) {
        const Range range = ranges[size_t(s)];
        EXPECT_EQ(range.begin, at);
        at = range.end;
        const int64_t bytes =
            std::accumulate(layers.begin() + range.begin,
                            layers.begin() + range.end,
                            (s == 0 ? first : int64_t{0}) + (s == stages - 1 ? last : int64_t{0}));
        heaviest = std::max(heaviest, bytes);
      }
      EXPECT_EQ(at, config.n_layers);
      EXPECT_EQ(heaviest, best_stage(layers, first, last, stages)) << stages;
    }
  }
}

TEST(StageLayers, EqualLayersAreSharedEvenly) {
  const ModelConfig air = parsed(real_config(false));
  const std::vector<Range> four = stage_layers(air, default_dtypes(DType::kQ40), 4);
  for (const Range& range : four) {
    EXPECT_GE(range.size(), 11);
    EXPECT_LE(range.size(), 12);
  }
}

// How often each element of a tensor is held, by its own rank (active columns).
class Counter {
 public:
  explicit Counter(const TensorSpec& spec)
      : vector_(spec.dims.size() == 1),
        matrices_(spec.n_matrices()),
        rows_(vector_ ? spec.cols() : spec.rows()),
        cols_(vector_ ? 1 : spec.cols()),
        counts_(static_cast<size_t>(spec.elements())) {}

  void add(const Slab& slab, StoredType type) {
    if (slab.empty()) return;
    ASSERT_LE(slab.matrices.end, matrices_);
    ASSERT_LE(slab.cols.end, cols_);
    ASSERT_LE(slab.cols.begin, slab.active_cols.begin);
    ASSERT_GE(slab.cols.end, slab.active_cols.end);
    if (is_quantized(type.dtype)) {
      ASSERT_EQ(slab.cols.begin % kQuantBlock, 0);
      ASSERT_EQ(slab.cols.end % kQuantBlock, 0);
      ASSERT_LT(slab.active_cols.begin - slab.cols.begin, kQuantBlock);
      ASSERT_LT(slab.cols.end - slab.active_cols.end, kQuantBlock);
    } else {
      ASSERT_EQ(slab.cols, slab.active_cols);
    }
    int64_t before = 0;
    for (const Range& range : slab.rows) {
      ASSERT_GE(range.begin, before);
      ASSERT_LE(range.end, rows_);
      ASSERT_GT(range.size(), 0);
      before = range.end;
      if (type.packing == Packing::kTile16) {
        ASSERT_EQ(range.begin % kTileRows, 0);
        ASSERT_EQ(range.end % kTileRows, 0);
      }
      for (int64_t m = slab.matrices.begin; m < slab.matrices.end; ++m)
        for (int64_t r = range.begin; r < range.end; ++r)
          for (int64_t c = slab.active_cols.begin; c < slab.active_cols.end; ++c)
            ++counts_[static_cast<size_t>((m * rows_ + r) * cols_ + c)];
    }
  }

  int least() const { return *std::min_element(counts_.begin(), counts_.end()); }
  int most() const { return *std::max_element(counts_.begin(), counts_.end()); }
  int at_row(int64_t row) const { return counts_[static_cast<size_t>(row * cols_)]; }

 private:
  bool vector_;
  int64_t matrices_;
  int64_t rows_;
  int64_t cols_;
  std::vector<int> counts_;
};

// Copies that a grid makes of a tensor on purpose.
int expected_copies(const TensorSpec& spec, const ModelConfig& config, const GridShape& shape) {
  if (spec.optional) return 0;
  int copies = shape.data;
  if (spec.experts) {
    const int holders = shape.expert >= shape.tensor ? shape.expert : shape.tensor;
    copies = shape.data * shape.tensor / holders;
  } else if (spec.split == Split::kNone) {
    copies *= shape.tensor;
  }
  // The last stage needs it as the head, or for its MTP layer.
  const bool twice = config.tied || config.family == Family::kGlm4Moe;
  if (spec.name == "embedding" && twice && shape.pipeline > 1) copies *= 2;
  return copies;
}

void check_grid(const ModelConfig& config,
                const GridShape& shape,
                const DTypeChoice& dtypes,
                Numerics numerics,
                const Capacities& capacities = {}) {
  const bool mtp = config.family == Family::kGlm4Moe;
  const Division division = divide_model(config, dtypes, shape, capacities, mtp);
  for (const TensorSpec& spec : tensor_specs(config, mtp)) {
    const StoredType type = stored_type(spec, config, dtypes);
    Counter counter(spec);
    for (int rank = 0; rank < shape.world(); ++rank)
      counter.add(shard_of(spec, type, config, division.placement(rank, numerics)), type);
    const int copies = expected_copies(spec, config, shape);
    SCOPED_TRACE(shape.text() + " " + spec.name);
    if (spec.split == Split::kQkv) {
      // Each query head once; a key-value head wherever its query heads are.
      for (int64_t row = 0; row < config.attention_width(); ++row)
        ASSERT_EQ(counter.at_row(row), copies) << row;
      ASSERT_GE(counter.least(), copies);
      if (shape.tensor <= config.n_kv_heads) {
        ASSERT_EQ(counter.most(), copies);
      }
      continue;
    }
    ASSERT_EQ(counter.least(), copies);
    ASSERT_EQ(counter.most(), copies);
  }
}

TEST(ShardOf, EveryElementIsHeldOnce) {
  for (const ModelConfig& config : odd_models())
    for (const GridShape& shape : legal_grids(8, config.is_moe()))
      for (const DType body : {DType::kQ40, DType::kF32}) {
        check_grid(config, shape, default_dtypes(body), Numerics::kDefault);
        if (HasFatalFailure()) return;
      }
}

TEST(ShardOf, EveryElementIsHeldOnceByUnequalRanks) {
  for (const ModelConfig& config : odd_models())
    for (const GridShape& shape : legal_grids(8, config.is_moe())) {
      Capacities capacities;
      for (int rank = 0; rank < shape.world(); ++rank) capacities.push_back(1 + (rank * 5) % 4);
      check_grid(config, shape, default_dtypes(DType::kQ40), Numerics::kDefault, capacities);
      check_grid(config, shape, default_dtypes(DType::kF32), Numerics::kReproducible, capacities);
      if (HasFatalFailure()) return;
    }
}

TEST(ShardOf, EveryElementIsHeldOnceInReproducibleMode) {
  for (const ModelConfig& config : odd_models())
    for (const GridShape& shape : legal_grids(8, config.is_moe())) {
      check_grid(config, shape, default_dtypes(DType::kQ80), Numerics::kReproducible);
      if (HasFatalFailure()) return;
    }
}

TEST(ShardOf, ReproducibleModeNeverSplitsColumns) {
  const ModelConfig config = odd_models()[0];
  const DTypeChoice dtypes = default_dtypes(DType::kQ40);
  for (const GridShape& shape : legal_grids(6, true)) {
    const Division division = divide_model(config, dtypes, shape);
    for (const TensorSpec& spec : tensor_specs(config, false))
      for (int rank = 0; rank < shape.world(); ++rank) {
        const Slab slab = shard_of(spec,
                                   stored_type(spec, config, dtypes),
                                   config,
                                   division.placement(rank, Numerics::kReproducible));
        if (slab.empty()) continue;
        EXPECT_EQ(slab.cols.size(), spec.dims.size() == 1 ? 1 : spec.cols()) << spec.name;
      }
  }
}

TEST(ShardOf, GateAndUpRowsStayTogether) {
  const ModelConfig config = parsed(real_config(false));
  const GridShape shape{1, 1, 4, 1};
  const Division division = divide_model(config, default_dtypes(DType::kQ40), shape);
  const auto slab_of = [&](DType body, int rank) {
    for (const TensorSpec& spec : tensor_specs(config, false))
      if (spec.name == "layers.0.mlp.gate_up")
        return shard_of(spec,
                        stored_type(spec, config, default_dtypes(body)),
                        config,
                        division.placement(rank, Numerics::kDefault));
    return Slab{};
  };
  // 10944 = 342 blocks of 32: 85 or 86 each.
  EXPECT_EQ(slab_of(DType::kQ40, 1).rows, (std::vector<Range>{{2 * 2720, 2 * 5472}}));
  EXPECT_EQ(slab_of(DType::kBF16, 1).rows,
            (std::vector<Range>{{2720, 5472}, {10944 + 2720, 10944 + 5472}}));
}

}  // namespace
}  // namespace glm
