// Dispatch and combine on every grid of up to 8 ranks, against a serial sum. All values are small
// whole numbers, so sums are exact in any order. SPDX-License-Identifier: MIT
#include "parallel/expert_exchange.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace glm {
namespace {

constexpr int64_t kHidden = 6;
constexpr int kTopK = 3;
constexpr int64_t kMaxRows = 80;

struct Setting {
  GridShape shape;
  ExchangeKind kind = ExchangeKind::kAuto;
  int n_experts = 5;
  int64_t base_rows = 0;
  std::string text() const {
    return shape.text() + ", kind " + std::to_string(static_cast<int>(kind)) + ", " +
           std::to_string(n_experts) + " experts, rows " + std::to_string(base_rows);
  }
};

std::vector<GridShape> planes() {
  std::vector<GridShape> shapes;
  for (int data = 1; data <= 8; ++data)
    for (int tensor = 1; data * tensor <= 8; ++tensor)
      for (int expert = 1; expert <= data * tensor; ++expert)
        if (tensor % expert == 0 || (expert % tensor == 0 && data % (expert / tensor) == 0))
          for (int pipeline = 1; pipeline * data * tensor <= 8 && pipeline <= 2; ++pipeline)
            shapes.push_back({data, pipeline, tensor, expert});
  return shapes;
}

// The batch of a data group. Some groups are idle.
int64_t rows_of(const Setting& setting, int data) {
  return data % 3 == 1 ? 0 : std::min(kMaxRows, setting.base_rows + data);
}
float x_of(int data, int64_t row, int64_t column) {
  return static_cast<float>((data * 5 + row * 3 + column) % 11 - 5);
}
// Ascending and different, as the router gives them; or none, for a row of padding.
std::vector<int32_t> experts_of(const Setting& setting, int data, int64_t row) {
  if (row % 7 == 6) return {-1, -1, -1};
  std::set<int32_t> chosen;
  for (int64_t i = 0; i < kTopK; ++i) {
    auto expert = static_cast<int32_t>((row * row + data + i * (row % 3 + 1)) % setting.n_experts);
    while (!chosen.insert(expert).second) expert = (expert + 1) % setting.n_experts;
  }
  return {chosen.begin(), chosen.end()};
}
float weight_of(int64_t row, int64_t slot) { return static_cast<float>(1 + (row + slot) % 3); }
// What expert e makes of an element, and what the shared expert makes of it.
float expert_value(int expert, float x, int64_t column) {
  return static_cast<float>(expert + 1) * x + static_cast<float>(column);
}
float shared_value(float x) { return 2 * x + 1; }

std::vector<float> serial_result(const Setting& setting, int data, bool with_shared) {
  std::vector<float> out;
  for (int64_t row = 0; row < rows_of(setting, data); ++row) {
    const std::vector<int32_t> experts = experts_of(setting, data, row);
    for (int64_t column = 0; column < kHidden; ++column) {
      const float x = x_of(data, row, column);
      float sum = with_shared ? shared_value(x) : 0.0f;
      for (int64_t slot = 0; slot < kTopK; ++slot)
        if (experts[static_cast<size_t>(slot)] >= 0)
          sum += weight_of(row, slot) * expert_value(experts[static_cast<size_t>(slot)], x, column);
      out.push_back(sum);
    }
  }
  return out;
}

// One rank's part of a test.
class Rank {
 public:
  Rank(Communicator& world, const Setting& setting)
      : setting_(setting),
        grid_(world, setting.shape),
        device_(make_cpu_device()),
        ops_(make_ops(OpsKind::kRef, *device_, 1, {8 * kMaxRows, kHidden, 16, 1, 16})) {
    config_.placement = {setting.n_experts, setting.shape.expert, expert_slices(setting.shape)};
    config_.top_k = kTopK;
    config_.hidden = kHidden;
    config_.max_rows = kMaxRows;
    config_.kind = setting.kind;
    const int64_t before = device_->allocated_bytes();
    exchange_ = std::make_unique<ExpertExchange>(grid_, *device_, *ops_, config_);
    EXPECT_EQ(device_->allocated_bytes() - before,
              ExpertExchange::buffer_bytes(setting.shape, config_))
        << setting.text();
  }

  void run(bool with_shared) {
    const int data = grid_.coord().data;
    const int64_t rows = rows_of(setting_, data);
    const Tensor x = device_->allocate(DType::kF32, {rows, kHidden});
    const Tensor experts = device_->allocate(DType::kI32, {rows, kTopK});
    const Tensor weights = device_->allocate(DType::kF32, {rows, kTopK});
    fill(x, experts, weights);
    Tensor shared;
    if (with_shared) shared = shared_part(x);
    const ExpertExchange::Dispatched mine = exchange_->dispatch(x, experts, weights);
    EXPECT_LE(mine.x.rows(), ExpertExchange::max_dispatched_rows(setting_.shape, config_));
    const Tensor partial = process(mine);
    const Tensor out = device_->allocate(DType::kF32, {rows, kHidden});
    exchange_->combine(out, partial, shared);
    const std::vector<float> result(out.f32(), out.f32() + out.elements());
    EXPECT_EQ(result, serial_result(setting_, data, with_shared))
        << setting_.text() << ", rank " << grid_.world().rank();
  }

  const ExchangeCounters& counters() const { return exchange_->counters(); }

  // Rows of this rank times the other ranks that hold an expert of theirs.
  int64_t expected_rows_sent() const {
    const int data = grid_.coord().data;
    const int64_t rows = rows_of(setting_, data), tensor = setting_.shape.tensor;
    int64_t sent = 0;
    for (int64_t row = rows * grid_.coord().tensor / tensor;
         row < rows * (grid_.coord().tensor + 1) / tensor;
         ++row) {
      std::set<int> ranks;
      for (const int32_t expert : experts_of(setting_, data, row))
        for (int slice = 0; expert >= 0 && slice < expert_slices(setting_.shape); ++slice)
          ranks.insert(owner(expert) * expert_slices(setting_.shape) + slice);
      ranks.erase(grid_.coord().expert * expert_slices(setting_.shape) +
                  grid_.coord().expert_slice);
      sent += static_cast<int64_t>(ranks.size());
    }
    return sent;
  }

 private:
  // The share that holds an expert: shares hold [n s / E, n (s + 1) / E).
  int owner(int expert) const {
    int share = 0;
    while (expert >= setting_.n_experts * (share + 1) / setting_.shape.expert) ++share;
    return share;
  }

  void fill(Tensor x, Tensor experts, Tensor weights) const {
    const int data = grid_.coord().data;
    for (int64_t row = 0; row < x.rows(); ++row) {
      for (int64_t column = 0; column < kHidden; ++column)
        x.f32()[row * kHidden + column] = x_of(data, row, column);
      const std::vector<int32_t> chosen = experts_of(setting_, data, row);
      for (int64_t slot = 0; slot < kTopK; ++slot) {
        experts.i32()[row * kTopK + slot] = chosen[static_cast<size_t>(slot)];
        weights.f32()[row * kTopK + slot] = weight_of(row, slot);
      }
    }
  }

  // Element j of the shared expert's output is made by tensor rank j % T.
  Tensor shared_part(Tensor x) {
    const Tensor part = device_->allocate(DType::kF32, {x.rows(), kHidden});
    for (int64_t i = 0; i < x.elements(); ++i)
      if (i % setting_.shape.tensor == grid_.coord().tensor)
        part.f32()[i] = shared_value(x.f32()[i]);
    return part;
  }

  // This rank's slice of its experts: element j of an expert's output is made by slice j % slices.
  Tensor process(const ExpertExchange::Dispatched& in) {
    const Tensor partial = device_->allocate(DType::kF32, {in.x.rows(), kHidden});
    for (int64_t row = 0; row < in.x.rows(); ++row)
      for (int64_t slot = 0; slot < kTopK; ++slot) {
        const int32_t expert = in.experts.i32()[row * kTopK + slot];
        if (expert < 0) continue;
        EXPECT_EQ(owner(expert), grid_.coord().expert) << setting_.text();
        for (int64_t column = 0; column < kHidden; ++column)
          if (column % expert_slices(setting_.shape) == grid_.coord().expert_slice)
            partial.f32()[row * kHidden + column] +=
                in.weights.f32()[row * kTopK + slot] *
                expert_value(expert, in.x.f32()[row * kHidden + column], column);
      }
    return partial;
  }

  Setting setting_;
  ProcessGrid grid_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  ExpertExchange::Config config_;
  std::unique_ptr<ExpertExchange> exchange_;
};

void run_setting(const Setting& setting, const std::function<void(Rank&)>& body) {
  CommOptions options;
  options.timeout_seconds = 60;
  run_thread_ranks(setting.shape.world(), options, [&](Communicator& world) {
    Rank rank(world, setting);
    body(rank);
  });
}

void expect_serial_result(const Setting& setting) {
  run_setting(setting, [](Rank& rank) {
    rank.run(true);
    rank.run(false);  // buffers are used again
    rank.run(true);
    EXPECT_EQ(rank.counters().dispatch_calls, 3);
    EXPECT_EQ(rank.counters().combine_calls, 3);
  });
}

TEST(ExpertExchange, AllToAllGivesTheSerialResultOnEveryGrid) {
  for (const GridShape& shape : planes())
    for (const int64_t rows : {0, 1, 13})
      expect_serial_result({shape, ExchangeKind::kAllToAll, 5, rows});
}

TEST(ExpertExchange, AutoGivesTheSerialResultWithFewAndManyRows) {
  for (const GridShape& shape : planes())
    for (const int64_t rows : {2, 70}) expect_serial_result({shape, ExchangeKind::kAuto, 11, rows});
}

TEST(ExpertExchange, ReduceGivesTheSerialResultWhereTokensAreShared) {
  for (const GridShape& shape : planes())
    if (shape.expert <= shape.tensor) expect_serial_result({shape, ExchangeKind::kReduce, 5, 13});
}

TEST(ExpertExchange, SharesMayBeEmpty) {
  // 3 experts on 8 ranks.
  expect_serial_result({{8, 1, 1, 8}, ExchangeKind::kAllToAll, 3, 5});
  expect_serial_result({{1, 1, 8, 8}, ExchangeKind::kAllToAll, 3, 20});
}

TEST(ExpertExchange, ReduceIsRefusedWhereTokensAreNotShared) {
  try {
    run_setting({{2, 1, 2, 4}, ExchangeKind::kReduce, 5, 1}, [](Rank&) {});
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("expert 4 is more than tensor 2"), std::string::npos)
        << error.what();
  }
}

TEST(ExpertExchange, ARowTravelsOncePerDestination) {
  for (const GridShape& shape : planes()) {
    if (shape.expert == 1) continue;
    run_setting({shape, ExchangeKind::kAllToAll, 7, 33}, [](Rank& rank) {
      rank.run(false);
      EXPECT_EQ(rank.counters().rows_sent, rank.expected_rows_sent());
      EXPECT_GE(rank.counters().bytes_sent, rank.counters().rows_sent * kHidden * 4);
    });
  }
}

TEST(ExpertExchange, FewSharedRowsAreNotSent) {
  run_setting({{1, 1, 4, 4}, ExchangeKind::kAuto, 8, 60}, [](Rank& rank) {
    rank.run(true);
    EXPECT_EQ(rank.counters().rows_sent, 0);
  });
  run_setting({{1, 1, 4, 4}, ExchangeKind::kAuto, 8, 70}, [](Rank& rank) {
    rank.run(true);
    EXPECT_EQ(rank.counters().rows_sent, rank.expected_rows_sent());
  });
}

TEST(ExpertExchange, MoreRowsThanPlannedAreRefused) {
  const auto self = make_self_communicator({});
  ProcessGrid grid(*self, {});
  const auto device = make_cpu_device();
  const auto ops = make_ops(OpsKind::kRef, *device, 1, {8, 8, 16, 1, 16});
  ExpertExchange::Config config;
  config.placement = {4, 1, 1};
  config.top_k = 2;
  config.hidden = 4;
  config.max_rows = 3;
  ExpertExchange exchange(grid, *device, *ops, config);
  EXPECT_THROW(exchange.dispatch(device->allocate(DType::kF32, {4, 4}),
                                 device->allocate(DType::kI32, {4, 2}),
                                 device->allocate(DType::kF32, {4, 2})),
               Error);
}

TEST(ExpertPlacement, EveryExpertHasTheShareThatHoldsIt) {
  for (int experts = 1; experts <= 40; ++experts)
    for (int shares = 1; shares <= 16; ++shares) {
      const ExpertPlacement placement{experts, shares, 1};
      EXPECT_EQ(placement.begin(0), 0);
      EXPECT_EQ(placement.begin(shares), experts);
      for (int expert = 0; expert < experts; ++expert) {
        const int share = placement.share_of(expert);
        EXPECT_LE(placement.begin(share), expert);
        EXPECT_LT(expert, placement.begin(share + 1));
      }
    }
}

}  // namespace
}  // namespace glm
