// Dispatch and combine on every grid of up to 8 ranks, against a serial sum. All values are small
// whole numbers, so sums are exact in any order. SPDX-License-Identifier: MIT
#include "parallel/expert_exchange.h"

#include <algorithm>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "tests/support/instrumented.h"

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
  bool counted = true;    // sizes of messages are exchanged, or follow from the rows of the step
  bool unsummed = false;  // reproducible mode
  std::string text() const {
    return std::string(counted ? "" : "known sizes, ") + (unsummed ? "unsummed, " : "") +
           shape.text() + ", kind " + std::to_string(static_cast<int>(kind)) + ", " +
           std::to_string(n_experts) + " experts, rows " + std::to_string(base_rows);
  }
};

std::vector<GridShape> planes() {
  std::vector<GridShape> shapes;
  const int most = testing_support::kInstrumented ? 6 : 8;
  for (int data = 1; data <= most; ++data)
    for (int tensor = 1; data * tensor <= most; ++tensor)
      for (int expert = 1; expert <= data * tensor; ++expert)
        if (tensor % expert == 0 || (expert % tensor == 0 && data % (expert / tensor) == 0))
          for (int pipeline = 1; pipeline * data * tensor <= most && pipeline <= 2; ++pipeline)
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
    if (setting.unsummed) config_.output_widths = slice_widths();
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
    begin_step();
    Tensor shared;
    exchange_->dispatch_start(x, experts, weights);
    if (with_shared) shared = shared_part(x);
    const ExpertExchange::Dispatched mine = exchange_->dispatch_finish();
    EXPECT_LE(mine.x.rows(), ExpertExchange::max_dispatched_rows(setting_.shape, config_));
    const Tensor out = device_->allocate(DType::kF32, {rows, kHidden});
    if (setting_.unsummed)
      return_outputs(out, mine, shared);
    else
      exchange_->combine(out, process(mine), shared);
    const std::vector<float> result(out.f32(), out.f32() + out.elements());
    EXPECT_EQ(result, serial_result(setting_, data, with_shared))
        << setting_.text() << ", rank " << grid_.world().rank();
  }

  const ExchangeCounters& counters() const { return exchange_->counters(); }
  CommCounters group_counters() { return grid_.exchange().counters(); }
  int data() const { return grid_.coord().data; }

  void start_and_throw() {
    const int64_t rows = rows_of(setting_, data());
    const Tensor x = device_->allocate(DType::kF32, {rows, kHidden});
    const Tensor experts = device_->allocate(DType::kI32, {rows, kTopK});
    const Tensor weights = device_->allocate(DType::kF32, {rows, kTopK});
    fill(x, experts, weights);
    begin_step();
    exchange_->dispatch_start(x, experts, weights);
    fail(ExitCode::kRuntime, "of the test");
  }

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

  void begin_step() {
    if (setting_.counted) return;
    std::vector<int64_t> step;
    for (int d = 0; d < setting_.shape.data; ++d) step.push_back(rows_of(setting_, d));
    exchange_->begin_step(step);
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

  std::vector<int64_t> slice_widths() const {
    const int slices = expert_slices(setting_.shape);
    std::vector<int64_t> widths;
    for (int s = 0; s < slices; ++s)
      widths.push_back(kHidden * (s + 1) / slices - kHidden * s / slices);
    return widths;
  }

  // An output for each of this rank's experts of each row, its slice of the columns.
  void return_outputs(Tensor out, const ExpertExchange::Dispatched& in, Tensor shared) {
    const int share = grid_.coord().expert;
    const int64_t n = in.x.rows();
    ExpertGroups groups;
    groups.n_experts = config_.placement.begin(share + 1) - config_.placement.begin(share);
    groups.capacity = n * kTopK;
    groups.offsets = device_->allocate(DType::kI32, {int64_t{groups.n_experts} + 1});
    groups.rows = device_->allocate(DType::kI32, {groups.capacity});
    groups.order = device_->allocate(DType::kI32, {n, kTopK});
    groups.weights = device_->allocate(DType::kF32, {n, kTopK});
    ops_->group_rows(groups, in.experts, in.weights, config_.placement.begin(share));
    const std::vector<int64_t> widths = slice_widths();
    const int slice = grid_.coord().expert_slice;
    const int64_t width = widths[static_cast<size_t>(slice)];
    const int64_t first = std::accumulate(widths.begin(), widths.begin() + slice, int64_t{0});
    const Tensor outputs = device_->allocate(DType::kF32, {groups.capacity, width});
    for (int e = 0; e < groups.n_experts; ++e)
      for (int64_t i = groups.offsets.i32()[e]; i < groups.offsets.i32()[e + 1]; ++i)
        for (int64_t c = 0; c < width; ++c)
          outputs.f32()[i * width + c] =
              expert_value(config_.placement.begin(share) + e,
                           in.x.f32()[groups.rows.i32()[i] * kHidden + first + c],
                           first + c);
    exchange_->combine_outputs(out, outputs, groups, shared);
  }

  // Element j of the shared expert's output is made by tensor rank j % T; in reproducible mode
  // every rank has all of it.
  Tensor shared_part(Tensor x) {
    const Tensor part = device_->allocate(DType::kF32, {x.rows(), kHidden});
    for (int64_t i = 0; i < x.elements(); ++i)
      if (setting_.unsummed || i % setting_.shape.tensor == grid_.coord().tensor)
        part.f32()[i] = shared_value(x.f32()[i]);
    return part;
  }

  // This rank's slice of its experts: element j of an expert's output is made by slice j % slices.
  Tensor process(const ExpertExchange::Dispatched& in) {
    const Tensor partial = device_->allocate(DType::kF32, {in.x.rows(), kHidden});
    for (int64_t row = 0; row < in.x.rows(); ++row)
      for (int64_t slot = 0; slot < kTopK; ++slot) {
        const int32_t expert = in.experts.i32()[row * kTopK + slot];
        if (expert < 0 || owner(expert) != grid_.coord().expert) continue;
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

// Above 8 rows of a rank they are exchanged after all.
TEST(ExpertExchange, KnownSizesGiveTheSerialResult) {
  for (const GridShape& shape : planes())
    for (const int64_t rows : {0, 1, 5, 8, 13})
      expect_serial_result({shape, ExchangeKind::kAllToAll, 5, rows, false});
}

TEST(ExpertExchange, UnsummedOutputsGiveTheSerialResult) {
  for (const GridShape& shape : planes())
    for (const ExchangeKind kind : {ExchangeKind::kAllToAll, ExchangeKind::kReduce})
      for (const int64_t rows : {0, 1, 13})
        if (kind == ExchangeKind::kAllToAll || shape.expert <= shape.tensor)
          expect_serial_result({shape, kind, 5, rows, rows == 13, true});
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
    for (const int64_t rows : {5, 33})  // of ranks without rows too
      run_setting({shape, ExchangeKind::kAllToAll, 7, rows}, [](Rank& rank) {
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

// One exchange there and one back: what travels is all rows to all ranks, their routing, and sums.
TEST(ExpertExchange, FewRowsTravelWithoutCounts) {
  const Setting setting{{4, 1, 1, 4}, ExchangeKind::kAllToAll, 7, 2, false};
  run_setting(setting, [&](Rank& rank) {
    const CommCounters before = rank.group_counters();
    rank.run(false);
    const CommCounters after = rank.group_counters();
    EXPECT_EQ(after.calls - before.calls, 2);
    EXPECT_EQ(rank.counters().rows_sent, 3 * rows_of(setting, rank.data()));
    int64_t others = 0;
    for (int d = 0; d < 4; ++d) others += d == rank.data() ? 0 : rows_of(setting, d);
    const int64_t row = kHidden * 4, routing = 2 * kTopK * 4;
    EXPECT_EQ(after.sent_bytes - before.sent_bytes,
              3 * rows_of(setting, rank.data()) * (row + routing) + others * row);
  });
}

TEST(ExpertExchange, AnErrorWhileRowsTravelReleasesTheOthers) {
  try {
    run_setting({{4, 1, 1, 4}, ExchangeKind::kAllToAll, 7, 3, false}, [](Rank& rank) {
      if (rank.data() == 2) rank.start_and_throw();
      rank.run(false);
    });
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "of the test");
  }
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

}  // namespace
}  // namespace glm
