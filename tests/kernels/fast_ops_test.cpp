// What a GPU does beyond the definition's bits when it may (OpsLimits::fast): attention of many
// rows on tensor cores. Within a tolerance of the reference; a row's bits still depend on nothing
// but its own sequence. SPDX-License-Identifier: MIT
#include <algorithm>

#include "tests/kernels/fast_backends.h"

namespace glm::testing {
namespace {

constexpr KvDType kCaches[] = {KvDType::kF32, KvDType::kF16, KvDType::kQ8};

struct Span {
  int position;  // of its first row
  int n_rows;
};

// Several sequences of one step over one cache with scattered pages.
class Step {
 public:
  Step(const HeadLayout& heads, KvDType dtype, const std::vector<Span>& spans, uint64_t key)
      : heads_(heads), cache_(dtype, heads.n_kv_heads, heads.head_dim, pages_of(spans) * 16) {
    int row = 0;
    for (const Span& span : spans) {
      batch_.max_context = std::max(batch_.max_context, span.position + span.n_rows);
      spans_.insert(spans_.end(), {row, span.n_rows, span.position, first_page_});
      add_sequence(span, key + static_cast<uint64_t>(row));
      row += span.n_rows;
    }
    batch_.n_rows = row;
    batch_.n_spans = static_cast<int>(spans.size());
    batch_.spans = host_tensor(spans_.data(), DType::kI32, {batch_.n_spans, 4});
    batch_.block_table = cache_.table.vector();
  }

  int rows() const { return batch_.n_rows; }
  int64_t width() const { return int64_t{heads_.n_heads} * heads_.head_dim; }
  const KvLayer& cache() const { return cache_.layer; }
  std::vector<float> attend(Ops& ops) {
    Floats out(rows(), width());
    ops.attention(out.view(), queries(), cache_.layer, batch_, heads_);
    return out.data;
  }
  Tolerances tolerance() {
    return attention_tolerance(queries(), cache_.layer, batch_, heads_, true);
  }
  // Rows [first, first + n) of the only sequence, as a step of their own.
  std::vector<float> attend_part(Ops& ops, int first, int n) {
    int32_t span[4] = {0, n, spans_[2] + first, 0};
    BatchRows part = batch_;
    part.n_rows = n;
    part.spans = host_tensor(span, DType::kI32, {1, 4});
    Floats out(n, width());
    ops.attention(out.view(), queries().slice(first, n), cache_.layer, part, heads_);
    return out.data;
  }

 private:
  static int pages_of(const std::vector<Span>& spans) {
    int pages = 0;
    for (const Span& span : spans) pages += (span.position + span.n_rows + 15) / 16;
    return pages;
  }
  Tensor queries() { return host_tensor(rows_.data(), DType::kF32, {rows(), heads_.row_width()}); }
  // All its positions are in the cache; its last rows are those of the step.
  void add_sequence(const Span& span, uint64_t key) {
    const int total = span.position + span.n_rows;
    Floats qkv(total, heads_.row_width(), key);
    std::vector<int32_t> slots;
    for (int p = 0; p < total; ++p) slots.push_back(cache_.slot(first_page_ * 16 + p));
    const auto device = make_cpu_device();
    const auto ops = make_ops(OpsKind::kRef, *device, 1, test_limits());
    ops->store_kv(
        cache_.layer, qkv.view(), host_tensor(slots.data(), DType::kI32, {total}), heads_);
    rows_.insert(
        rows_.end(), qkv.data.begin() + span.position * heads_.row_width(), qkv.data.end());
    first_page_ += (total + 15) / 16;
  }

  HeadLayout heads_;
  Cache cache_;
  int first_page_ = 0;
  std::vector<int32_t> spans_;
  std::vector<float> rows_;
  BatchRows batch_;
};

// Compared with the reference, and with each other to the bit.
void expect_near_reference(Step& step) {
  FastBackends backends;
  const auto device = make_cpu_device();
  std::vector<float> expected = step.attend(*make_ops(OpsKind::kRef, *device, 1, test_limits()));
  std::vector<float> first;
  for (const Backend& backend : backends.set.all) {
    SCOPED_TRACE(backend.name);
    std::vector<float> actual = step.attend(*backend.ops);
    const auto n = static_cast<int64_t>(actual.size());
    expect_within(host_tensor(actual.data(), DType::kF32, {n}),
                  host_tensor(expected.data(), DType::kF32, {n}),
                  step.tolerance());
    if (first.empty()) first = actual;
    EXPECT_TRUE(same_bits(actual, first));
  }
}

struct FastCase {
  const char* name;
  HeadLayout heads;
  Span span;
};

class FastAttention : public ::testing::TestWithParam<FastCase> {};

TEST_P(FastAttention, AgreesWithTheReference) {
  for (const KvDType dtype : kCaches) {
    SCOPED_TRACE(kv_dtype_name(dtype));
    Step step(GetParam().heads, dtype, {GetParam().span}, 31);
    expect_near_reference(step);
  }
}

std::string fast_case_name(const ::testing::TestParamInfo<FastCase>& info) {
  return info.param.name;
}

// Rows, positions before them, and where they end: tiles of 64 positions and of 64 queries.
INSTANTIATE_TEST_SUITE_P(Cases,
                         FastAttention,
                         ::testing::Values(FastCase{"ratio12", {24, 2, 128, 12, 0}, {0, 33}},
                                           FastCase{"ratio12behind", {12, 1, 128, 12, 0}, {95, 33}},
                                           FastCase{"ratio8", {8, 1, 128, 8, 0}, {31, 40}},
                                           FastCase{"ratio1", {2, 2, 128, 1, 0}, {0, 129}},
                                           FastCase{"ratio16", {16, 1, 128, 16, 0}, {0, 32}},
                                           FastCase{"ratio19", {19, 1, 16, 19, 0}, {14, 35}},
                                           FastCase{"partofagroup", {7, 3, 24, 3, 1}, {28, 36}},
                                           FastCase{"endofagroup", {4, 2, 64, 6, 4}, {0, 64}},
                                           FastCase{"oddwidth", {5, 5, 37, 1, 0}, {16, 49}},
                                           FastCase{"shortgroup", {4, 2, 40, 2, 0}, {63, 65}},
                                           FastCase{"between", {3, 1, 96, 3, 0}, {1, 63}},
                                           FastCase{"onewide", {1, 1, 1, 1, 0}, {200, 70}}),
                         fast_case_name);

// Sequences of any length in one step; those with few rows keep the definition's bits.
TEST(FastAttentionSteps, FewRowsKeepTheirBits) {
  const HeadLayout heads{6, 2, 64, 3, 0};
  for (const KvDType dtype : kCaches) {
    Step step(heads, dtype, {{300, 1}, {5, 40}, {0, 31}, {63, 32}, {17, 3}}, 32);
    expect_near_reference(step);
    FastBackends backends;
    const auto device = make_cpu_device();
    const auto cpu = step.attend(*make_ops(OpsKind::kAuto, *device, 1, test_limits()));
    const auto fast = step.attend(*backends.set.all[0].ops);
    const auto same = [&](int first, int n) {
      const auto begin = static_cast<size_t>(first * step.width());
      return std::equal(fast.begin() + static_cast<std::ptrdiff_t>(begin),
                        fast.begin() + static_cast<std::ptrdiff_t>(begin) + n * step.width(),
                        cpu.begin() + static_cast<std::ptrdiff_t>(begin));
    };
    EXPECT_TRUE(same(0, 1));
    EXPECT_FALSE(same(1, 40)) << "not on tensor cores";
    EXPECT_TRUE(same(41, 31));
    EXPECT_FALSE(same(72, 32)) << "not on tensor cores";
    EXPECT_TRUE(same(104, 3));
  }
}

// A prompt in pieces, each long enough, is the prompt at once.
TEST(FastAttentionSteps, PiecesOfAPromptHaveItsBits) {
  const HeadLayout heads{12, 1, 128, 12, 0};
  FastBackends backends;
  Step step(heads, KvDType::kF16, {{7, 130}}, 33);
  const auto whole = step.attend(*backends.set.all[0].ops);
  for (const Backend& backend : backends.set.all) {
    for (const auto& [first, n] : std::vector<std::pair<int, int>>{{0, 32}, {32, 57}, {89, 41}}) {
      const auto part = step.attend_part(*backend.ops, first, n);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * step.width()))
          << backend.name << " " << first << " + " << n;
    }
  }
}

// What stands in a page behind the last position, and in other pages, is not looked at.
TEST(FastAttentionSteps, PagesMayHoldAnythingBehindTheEnd) {
  for (const KvDType dtype : kCaches) {
    Step step({4, 1, 64, 4, 0}, dtype, {{0, 37}}, 34);  // the third page has 11 free positions
    FastBackends backends;
    for (const Backend& backend : backends.set.all)
      for (const float x : step.attend(*backend.ops)) ASSERT_TRUE(std::isfinite(x));
  }
}

// Scores far apart: weights of all positions but the last vanish, those before it must not stay.
TEST(FastAttentionSteps, LargestScoreMayComeLast) {
  const int total = 140;
  const HeadLayout heads{1, 1, 8, 1, 0};
  Floats qkv(total, 24);
  for (int t = 0; t < total; ++t)
    for (int d = 0; d < 8; ++d) {
      qkv.data[static_cast<size_t>(t * 24 + d)] = 10.0f;
      qkv.data[static_cast<size_t>(t * 24 + 8 + d)] = static_cast<float>(t);
      qkv.data[static_cast<size_t>(t * 24 + 16 + d)] = static_cast<float>(t * 8 + d);
    }
  Cache cache(KvDType::kF32, 1, 8, total);
  std::vector<int32_t> slots;
  for (int p = 0; p < total; ++p) slots.push_back(cache.slot(p));
  int32_t span[4] = {0, total, 0, 0};
  BatchRows rows;
  rows.n_rows = rows.max_context = total;
  rows.n_spans = 1;
  rows.spans = host_tensor(span, DType::kI32, {1, 4});
  rows.block_table = cache.table.vector();
  const FastBackends backends;
  for (const Backend& backend : backends.set.all) {
    backend.ops->store_kv(
        cache.layer, qkv.view(), host_tensor(slots.data(), DType::kI32, {total}), heads);
    Floats out(total, 8);
    backend.ops->attention(out.view(), qkv.view(), cache.layer, rows, heads);
    for (int t = 0; t < total; ++t)
      for (int d = 0; d < 8; ++d) {
        const auto expected = static_cast<double>(t * 8 + d);
        EXPECT_NEAR(out.data[static_cast<size_t>(t * 8 + d)], expected, 1e-4 * expected + 1e-6);
      }
  }
}

}  // namespace
}  // namespace glm::testing
