// Routing, grouping, experts and their sum. SPDX-License-Identifier: MIT
#include <cmath>
#include <numeric>

#include "kernels/cases.h"
#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

struct Routed {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Routed route(Ops& ops, Floats logits, const RouterConfig& config, std::vector<float> bias = {}) {
  Routed out;
  const int64_t n = logits.rows * config.top_k;
  out.experts.resize(static_cast<size_t>(n));
  out.weights.resize(static_cast<size_t>(n));
  Tensor bias_view;
  if (!bias.empty()) bias_view = host_tensor(bias.data(), DType::kF32, {config.n_experts});
  ops.route(host_tensor(out.experts.data(), DType::kI32, {logits.rows, config.top_k}),
            host_tensor(out.weights.data(), DType::kF32, {logits.rows, config.top_k}),
            logits.view(),
            bias_view,
            config);
  return out;
}

TEST(Route, BiasChoosesButDoesNotWeigh) {
  Backends backends({1});
  const RouterConfig config{RouterKind::kSigmoid, 4, 2, 1, 1, true, 2.5f};
  on_all(backends, [&](Ops& ops) {
    Floats logits(1, 4);
    logits.data = {2.0f, 1.0f, 0.0f, -1.0f};
    const Routed plain = route(ops, logits, config);
    EXPECT_EQ(plain.experts, (std::vector<int32_t>{0, 1}));
    const Routed biased = route(ops, logits, config, {-5.0f, 0.0f, 0.0f, 5.0f});
    EXPECT_EQ(biased.experts, (std::vector<int32_t>{1, 3}));
    const double s1 = 1 / (1 + std::exp(-1.0)), s3 = 1 / (1 + std::exp(1.0));
    EXPECT_NEAR(biased.weights[0], 2.5 * s1 / (s1 + s3), 1e-6);
    EXPECT_NEAR(biased.weights[1], 2.5 * s3 / (s1 + s3), 1e-6);
  });
}

TEST(Route, TiesGoToTheLowerIndex) {
  Backends backends({1});
  for (const RouterKind kind : {RouterKind::kSigmoid, RouterKind::kSoftmax}) {
    const RouterConfig config{kind, 6, 3, 1, 1, false, 1.0f};
    on_all(backends, [&](Ops& ops) {
      Floats logits(1, 6);
      logits.data = {0.5f, 1.0f, 0.5f, 0.5f, 1.0f, 0.5f};
      EXPECT_EQ(route(ops, logits, config).experts, (std::vector<int32_t>{0, 1, 4}));
      EXPECT_EQ(route(ops, logits, config, {0, 0, 1, 1, 0, 1}).experts,
                (std::vector<int32_t>{2, 3, 5}));
    });
  }
}

TEST(Route, SoftmaxIsOverAllExperts) {
  Backends backends({1});
  on_all(backends, [&](Ops& ops) {
    Floats logits(1, 3);
    logits.data = {0.0f, 1.0f, 2.0f};
    RouterConfig config{RouterKind::kSoftmax, 3, 2, 1, 1, false, 1.0f};
    const double total = 1 + std::exp(1.0) + std::exp(2.0);
    const Routed raw = route(ops, logits, config);
    EXPECT_NEAR(raw.weights[0], std::exp(1.0) / total, 1e-6);
    EXPECT_NEAR(raw.weights[1], std::exp(2.0) / total, 1e-6);
    config.norm_topk = true;
    const Routed normed = route(ops, logits, config);
    EXPECT_NEAR(normed.weights[0] + normed.weights[1], 1.0, 1e-6);
  });
}

TEST(Route, GroupsAreChosenByTheirTwoBest) {
  Backends backends({1});
  const RouterConfig config{RouterKind::kSigmoid, 6, 2, 3, 1, true, 1.0f};
  on_all(backends, [&](Ops& ops) {
    Floats logits(1, 6);
    // Group 1 holds the single best expert, group 2 the best pair.
    logits.data = {0.0f, 0.1f, 3.0f, -3.0f, 1.5f, 1.6f};
    EXPECT_EQ(route(ops, logits, config).experts, (std::vector<int32_t>{4, 5}));
    RouterConfig single = config;  // groups of one expert: that one decides
    single.n_group = 6;
    single.topk_group = 2;
    EXPECT_EQ(route(ops, logits, single).experts, (std::vector<int32_t>{2, 5}));
  });
}

TEST(Route, NanIsChosenLastAndCrashesNothing) {
  Backends backends({1});
  for (const RouterKind kind : {RouterKind::kSigmoid, RouterKind::kSoftmax}) {
    for (const int groups : {1, 2}) {
      const RouterConfig config{kind, 4, 2, groups, groups, true, 1.0f};
      on_all(backends, [&](Ops& ops) {
        Floats logits(2, 4);
        logits.data = {NAN, 1.0f, 2.0f, NAN, NAN, NAN, NAN, NAN};
        const Routed routed = route(ops, logits, config);
        if (kind == RouterKind::kSigmoid) {
          EXPECT_EQ(routed.experts[1], 2);
        }
        EXPECT_EQ(routed.experts[2], 0);
        EXPECT_EQ(routed.experts[3], 1);
      });
    }
  }
}

TEST(Route, AgreesOnRandomRows) {
  Backends backends;
  for (const auto& [n, k, groups, kept] : std::vector<std::array<int, 4>>{
           {4, 2, 1, 1}, {128, 8, 1, 1}, {160, 8, 1, 1}, {17, 3, 1, 1}, {64, 6, 8, 3}}) {
    for (const RouterKind kind : {RouterKind::kSigmoid, RouterKind::kSoftmax}) {
      const RouterConfig config{kind, n, k, groups, kept, true, 1.8f};
      Floats logits(40, n, 51);
      for (float& x : logits.data) x *= 4;
      const std::vector<float> bias = random_values(n, 52);
      const Routed expected = route(backends.reference(), logits, config, bias);
      Routed first;
      for (size_t i = 0; i < backends.size(); ++i) {
        SCOPED_TRACE(backends.name(i));
        const Routed got = route(backends.ops(i), logits, config, bias);
        EXPECT_EQ(got.experts, expected.experts);
        for (size_t j = 0; j < got.weights.size(); ++j)
          EXPECT_NEAR(got.weights[j], expected.weights[j], 4e-6 * expected.weights[j]);
        if (i == 0) first = got;
        EXPECT_TRUE(same_bits(got.weights, first.weights));
      }
    }
  }
}

// Owns the tensors of an ExpertGroups.
struct Groups {
  Ints offsets, rows, order;
  Floats weights;
  ExpertGroups view;
  Groups(int n_experts, int64_t n_rows, int64_t top_k)
      : offsets(std::vector<int32_t>(static_cast<size_t>(n_experts) + 1, -9), 1),
        rows(std::vector<int32_t>(static_cast<size_t>(n_rows * top_k), -9), 1),
        order(std::vector<int32_t>(static_cast<size_t>(n_rows * top_k), -9), top_k),
        weights(n_rows, top_k) {
    view = {
        n_experts, n_rows * top_k, offsets.vector(), rows.vector(), order.view(), weights.view()};
  }
};

TEST(GroupRows, SortsStablyAndSkipsWhatIsNotLocal) {
  Backends backends({1});
  on_all(backends, [&](Ops& ops) {
    Ints experts({5, 3, -1, 4, 9, 3, 3, 2, 5}, 3);
    Floats weights(3, 3);
    weights.data = {0.5f, 0.3f, 0, 0.4f, 0.9f, 0.35f, 0.31f, 0.2f, 0.55f};
    Groups groups(3, 3, 3);  // local experts 3, 4, 5
    ops.group_rows(groups.view, experts.view(), weights.view(), 3);
    EXPECT_EQ(groups.offsets.data, (std::vector<int32_t>{0, 3, 4, 6}));
    const std::vector<int32_t> rows(groups.rows.data.begin(), groups.rows.data.begin() + 6);
    EXPECT_EQ(rows, (std::vector<int32_t>{0, 1, 2, 1, 0, 2}));
    EXPECT_EQ(groups.order.data, (std::vector<int32_t>{0, 4, -1, 1, 3, -1, 2, 5, -1}));
    EXPECT_EQ(groups.weights.data,
              (std::vector<float>{0.3f, 0.5f, 0, 0.35f, 0.4f, 0, 0.31f, 0.55f, 0}));
  });
}

void add(Tolerances& all, const Tolerances& part) {
  all.insert(all.end(), part.begin(), part.end());
}

class Experts : public ::testing::TestWithParam<ExpertCase> {};

// Router to sum, every format, few and many rows.
TEST_P(Experts, AgreeFromGroupsToSum) {
  Backends backends;
  const ExpertCase& shape = GetParam();
  const int64_t hidden = std::min<int64_t>(shape.hidden, backends.thorough() ? 512 : 128);
  const int64_t width = std::min<int64_t>(shape.width, 64);
  for (const Format& format : all_formats()) {
    if (format.packing == Packing::kTile16 && (width % 16 != 0 || hidden % 16 != 0)) continue;
    if (is_quantized(format.dtype) && (width % 32 != 0 || hidden % 32 != 0)) continue;
    SCOPED_TRACE(format_name(format));
    const Matrix up(format.dtype, format.packing, shape.n_experts, 2 * width, hidden, 61);
    const Matrix down(format.dtype, format.packing, shape.n_experts, hidden, width, 62);
    for (const int64_t tokens : {0, 1, 21, 150}) {
      if (tokens > 100 && hidden > 96) continue;
      Floats x(tokens, hidden, 63), logits(tokens, shape.n_experts, 64);
      const RouterConfig config{RouterKind::kSigmoid, shape.n_experts, shape.top_k, 1, 1, true, 1};
      const Routed routed = route(backends.reference(), logits, config);
      Ints ids(routed.experts, shape.top_k);
      Floats weights(tokens, shape.top_k);
      weights.data = routed.weights;
      Groups groups(shape.n_experts, tokens, shape.top_k);
      backends.reference().group_rows(groups.view, ids.view(), weights.view(), 0);
      const int64_t n = tokens * shape.top_k;
      Floats gathered(n, hidden);
      for (int64_t i = 0; i < n; ++i)
        std::copy_n(x.data.begin() + groups.rows.data[static_cast<size_t>(i)] * hidden,
                    hidden,
                    gathered.data.begin() + i * hidden);
      Floats h(n, width, 65), rows(n, hidden, 66);
      Tolerances up_bounds, down_bounds;
      for (int e = 0; e < shape.n_experts; ++e) {
        const int64_t first = groups.offsets.data[static_cast<size_t>(e)];
        const int64_t count = groups.offsets.data[static_cast<size_t>(e) + 1] - first;
        add(up_bounds, gate_up_tolerance(gathered.view().slice(first, count), up.weight(), e));
        add(down_bounds, linear_tolerance(h.view().slice(first, count), down.weight(), e, {}));
      }
      expect_all_agree(
          backends,
          n,
          width,
          up_bounds,
          [&](Ops& ops, Tensor out) {
            ops.expert_gate_up(out, x.view(), groups.view, up.weight());
          },
          format.dtype);
      expect_all_agree(
          backends,
          n,
          hidden,
          down_bounds,
          [&](Ops& ops, Tensor out) { ops.expert_down(out, h.view(), groups.view, down.weight()); },
          format.dtype);
      Floats sum(tokens, hidden);
      const Tolerances bounds = combine_tolerance(sum.view(), rows.view(), groups.view);
      expect_all_agree(backends, tokens, hidden, bounds, [&](Ops& ops, Tensor out) {
        ops.combine(out, rows.view(), groups.view);
      });
    }
  }
}

std::string experts_case_name(const ::testing::TestParamInfo<ExpertCase>& info) {
  return fmt::format("experts{}top{}", info.param.n_experts, info.param.top_k);
}
INSTANTIATE_TEST_SUITE_P(Cases, Experts, ::testing::ValuesIn(expert_cases()), experts_case_name);

// 5 rows with experts of 3 shares (one of them empty) in 2 slices; 40 ranks with a share each.
TEST(CopyRows, EveryRankGetsAllRowsWithItsExperts) {
  Backends backends({1});
  const int top_k = 3;
  Ints experts({0, 4, 9, 1, -1, -1, 5, 6, 7, -1, -1, -1, 2, 3, 8}, top_k);
  Floats weights(5, top_k, 71);
  std::vector<int32_t> many(41);
  for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<int32_t>(i / 4);
  for (const auto& [borders_of, slices] :
       {std::pair{std::vector<int32_t>{0, 4, 4, 10}, 2}, std::pair{many, 1}}) {
    Ints borders(borders_of, 1);
    const int ranks = (static_cast<int>(borders_of.size()) - 1) * slices;
    const auto sent = static_cast<size_t>(ranks) * 5;
    const int most = std::min(static_cast<int>(borders_of.size()) - 1, top_k) * slices;
    on_all(backends, [&](Ops& ops) {
      Ints index(std::vector<int32_t>(sent, 77), 1);
      Ints routing(std::vector<int32_t>(sent * 2 * top_k, 77), 2 * top_k);
      Ints places(std::vector<int32_t>(static_cast<size_t>(5 * most), 77), most);
      RowCopies out{index.vector(), routing.view(), places.view()};
      ops.copy_rows(out, experts.view(), weights.view(), borders.vector(), slices);
      Ints split(std::vector<int32_t>(sent * top_k), top_k);
      Floats split_weights(static_cast<int64_t>(sent), top_k);
      ops.split_routing(split.view(), split_weights.view(), routing.view());
      for (int t = 0; t < 5; ++t) {
        std::vector<int32_t> expected;
        for (int p = 0; p < ranks; ++p) {
          const auto at = static_cast<size_t>(p * 5 + t);
          EXPECT_EQ(index.data[at], t);
          bool needed = false;
          for (size_t j = 0; j < top_k; ++j) {
            const size_t from = static_cast<size_t>(t) * top_k + j;
            const int32_t e = experts.data[from];
            const auto share = static_cast<size_t>(p / slices);
            const bool goes = e >= borders_of[share] && e < borders_of[share + 1];
            EXPECT_EQ(split.data[at * top_k + j], goes ? e : -1);
            EXPECT_EQ(split_weights.data[at * top_k + j], goes ? weights.data[from] : 0.0f);
            needed = needed || goes;
          }
          if (needed) expected.push_back(static_cast<int32_t>(at));
        }
        expected.resize(static_cast<size_t>(most), -1);
        const auto first = places.data.begin() + t * most;
        EXPECT_EQ(std::vector<int32_t>(first, first + most), expected) << "row " << t;
      }
    });
  }
}

TEST(Combine, AnAddendComesLast) {
  Backends backends({2});
  on_all(backends, [&](Ops& ops) {
    Groups groups(4, 2, 3);
    groups.order.data = {0, 2, 3, -1, -1, -1};
    groups.weights.data = {0.1f, 0.7f, 0.3f, 5, 5, 5};
    Floats rows(6, 300, 69), addend(2, 300, 70), out(2, 300), expected(2, 300);
    ops.combine(out.view(), rows.view(), groups.view, addend.view());
    ops.combine(expected.view(), rows.view(), groups.view);
    ops.add(expected.view(), addend.view());
    EXPECT_TRUE(same_bits(out.data, expected.data));
  });
}

TEST(Combine, AddsInAscendingOrderWithOneRoundingEach) {
  Backends backends({2});
  for (size_t i = 0; i < backends.size(); ++i) {
    Groups groups(4, 2, 3);
    groups.order.data = {0, 2, 3, -1, -1, -1};
    groups.weights.data = {0.1f, 0.7f, 0.3f, 5, 5, 5};
    Floats rows(6, 33, 67), out(2, 33, 68);
    backends.ops(i).combine(out.view(), rows.view(), groups.view);
    for (size_t c = 0; c < 33; ++c) {
      float sum = 0.1f * rows.data[c];
      const float second = 0.7f * rows.data[2 * 33 + c];
      sum = sum + second;
      const float third = 0.3f * rows.data[3 * 33 + c];
      sum = sum + third;
      EXPECT_EQ(out.data[c], sum);
      EXPECT_EQ(out.data[33 + c], 0.0f);
    }
  }
}

}  // namespace
}  // namespace glm::testing
