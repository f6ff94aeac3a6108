// The paged cache and attention over it. SPDX-License-Identifier: MIT
#include <algorithm>
#include <numeric>

#include "kernels/cases.h"
#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

constexpr KvDType kKvTypes[] = {KvDType::kF32, KvDType::kF16, KvDType::kQ8};

// One sequence of `total` positions; all keys and values are in the cache.
struct Sequence {
  HeadLayout heads;
  Floats qkv;
  Cache cache;
  std::vector<int32_t> slots;

  Sequence(const HeadLayout& layout, KvDType dtype, int total, uint64_t key)
      : heads(layout),
        qkv(total, layout.row_width(), key),
        cache(dtype, layout.n_kv_heads, layout.head_dim, total) {
    for (int p = 0; p < total; ++p) slots.push_back(cache.slot(p));
  }
  void store(Ops& ops, int first, int n) {
    ops.store_kv(cache.layer,
                 qkv.view().slice(first, n),
                 host_tensor(slots.data() + first, DType::kI32, {n}),
                 heads);
  }
  // Rows [first, first + n) attend.
  void attend(Ops& ops, Tensor out, int first, int n) {
    int32_t span[4] = {0, n, first, 0};
    BatchRows rows;
    rows.n_rows = n;
    rows.n_spans = 1;
    rows.max_context = first + n;
    rows.spans = host_tensor(span, DType::kI32, {1, 4});
    rows.block_table = cache.table.vector();
    ops.attention(out, qkv.view().slice(first, n), cache.layer, rows, heads);
  }
  Tolerances tolerance(int first, int n) {
    int32_t span[4] = {0, n, first, 0};
    BatchRows rows;
    rows.n_rows = n;
    rows.n_spans = 1;
    rows.spans = host_tensor(span, DType::kI32, {1, 4});
    rows.block_table = cache.table.vector();
    return attention_tolerance(qkv.view().slice(first, n), cache.layer, rows, heads);
  }
};

class Attention : public ::testing::TestWithParam<AttentionCase> {};

TEST_P(Attention, AgreesAtPageAndSplitBorders) {
  Backends backends;
  const HeadLayout heads = GetParam().layout();
  const bool large = heads.row_width() > (backends.thorough() ? 4000 : 1000);
  for (const KvDType dtype : kKvTypes) {
    if (!backends.thorough() && heads.n_heads > 32 && dtype != KvDType::kF16) continue;
    for (const auto& [first, n] : std::vector<std::pair<int, int>>{
             {0, 1}, {0, 18}, {15, 2}, {254, 1}, {255, 1}, {256, 1}, {255, 3}, {600, 2}}) {
      if (large && (n > 1 || first == 254 || first == 600)) continue;
      if (!backends.thorough() && !large && n == 1 && first > 0) continue;
      SCOPED_TRACE(fmt::format("{} {} + {}", kv_dtype_name(dtype), first, n));
      Sequence sequence(heads, dtype, first + n, 21);
      sequence.store(backends.fastest(), 0, first + n);
      expect_all_agree(
          backends,
          n,
          int64_t{heads.n_heads} * heads.head_dim,
          sequence.tolerance(first, n),
          [&, f = first, c = n](Ops& ops, Tensor out) { sequence.attend(ops, out, f, c); });
    }
  }
}

TEST_P(Attention, CacheBytesAreTheReferences) {
  Backends backends;
  const HeadLayout heads = GetParam().layout();
  for (const KvDType dtype : kKvTypes) {
    Sequence expected(heads, dtype, 21, 22);
    expected.store(backends.reference(), 0, 21);
    for (size_t i = 0; i < backends.size(); ++i) {
      Sequence actual(heads, dtype, 21, 22);
      actual.store(backends.ops(i), 0, 21);
      EXPECT_EQ(actual.cache.keys, expected.cache.keys) << backends.name(i);
      EXPECT_EQ(actual.cache.values, expected.cache.values) << backends.name(i);
    }
  }
}

TEST_P(Attention, HeadsPlacedAtOnceAreThoseOfOneStepAfterTheOther) {
  Backends backends({1});
  const HeadLayout heads = GetParam().layout();
  const int total = 19;
  const int64_t turned = heads.head_dim / 4 * 2;
  Floats q_norm(1, heads.head_dim, 24), k_norm(1, heads.head_dim, 25), table(total, turned, 26);
  for (const KvDType dtype : kKvTypes) {
    for (const bool norms : {false, true}) {
      const RopePairing pairing = norms ? RopePairing::kHalfSplit : RopePairing::kInterleaved;
      HeadTurn turn{{}, {}, 1e-5f, table.view().reshaped({total, 2, turned / 2}), pairing};
      if (norms) turn.q_norm = q_norm.vector();
      if (norms) turn.k_norm = k_norm.vector();
      on_all(backends, [&](Ops& ops) {
        Sequence once(heads, dtype, total, 27), apart(heads, dtype, total, 27);
        const Tensor slots = host_tensor(once.slots.data(), DType::kI32, {total});
        ops.place_heads(once.cache.layer, once.qkv.view(), slots, heads, turn);
        const Tensor qkv = apart.qkv.view();
        if (norms) {
          ops.head_norm(qkv, 0, heads.n_heads, heads.head_dim, turn.q_norm, 1e-5f);
          ops.head_norm(qkv, heads.n_heads, heads.n_kv_heads, heads.head_dim, turn.k_norm, 1e-5f);
        }
        ops.rope(qkv, turn.table, heads, pairing);
        apart.store(ops, 0, total);
        EXPECT_TRUE(same_bits(once.qkv.data, apart.qkv.data)) << kv_dtype_name(dtype);
        EXPECT_EQ(once.cache.keys, apart.cache.keys) << kv_dtype_name(dtype);
        EXPECT_EQ(once.cache.values, apart.cache.values) << kv_dtype_name(dtype);
      });
    }
  }
}

std::string attention_case_name(const ::testing::TestParamInfo<AttentionCase>& info) {
  return fmt::format("q{}kv{}dim{}ratio{}first{}",
                     info.param.n_heads,
                     info.param.n_kv_heads,
                     info.param.head_dim,
                     info.param.ratio,
                     info.param.first_head);
}
INSTANTIATE_TEST_SUITE_P(Cases,
                         Attention,
                         ::testing::ValuesIn(attention_cases()),
                         attention_case_name);

// A row has the same bits whatever chunk it came in, and whoever computes it.
TEST(AttentionRows, ChunksAndThreadsDoNotMatter) {
  Backends backends({1, 2, 3, 8});
  const HeadLayout heads{6, 2, 24, 3, 0};
  const int total = backends.thorough() ? 530 : 262;
  for (const KvDType dtype : kKvTypes) {
    if (!backends.thorough() && dtype == KvDType::kF32) continue;
    Sequence sequence(heads, dtype, total, 23);
    sequence.store(backends.fastest(), 0, total);
    Floats whole(total, 6 * 24);
    sequence.attend(backends.ops(0), whole.view(), 0, total);
    for (size_t i = 0; i < backends.size(); ++i) {
      if (backends.name(i).starts_with("scalar") && i != 0) continue;
      for (const int chunk : {1, 7, 100}) {
        if (chunk == 7 && !backends.thorough()) continue;
        Floats parts = whole;
        const int first = chunk == 1 && !backends.thorough() ? total - 10 : 0;
        std::fill(parts.data.begin() + int64_t{first} * parts.cols, parts.data.end(), 0.0f);
        for (int t = first; t < total; t += chunk) {
          const int n = std::min(chunk, total - t);
          sequence.attend(backends.ops(i), parts.view().slice(t, n), t, n);
        }
        EXPECT_TRUE(same_bits(parts.data, whole.data))
            << kv_dtype_name(dtype) << " " << backends.name(i) << " chunks of " << chunk;
      }
    }
  }
}

// Sequences of one batch do not see each other.
TEST(AttentionRows, BatchedIsAlone) {
  Backends backends({1, 3});
  const HeadLayout heads{4, 2, 16, 2, 0};
  const int lengths[] = {1, 17, 300};
  for (size_t i = 0; i < backends.size(); ++i) {
    Cache cache(KvDType::kF16, 2, 16, 16 + 32 + 304);
    std::vector<int32_t> spans, slots;
    std::vector<float> rows, alone;
    int first_block = 0;
    for (const int length : lengths) {
      Sequence sequence(heads, KvDType::kF16, length, 24 + static_cast<uint64_t>(length));
      sequence.store(backends.ops(i), 0, length);
      Floats out(1, 64);
      sequence.attend(backends.ops(i), out.view(), length - 1, 1);
      alone.insert(alone.end(), out.data.begin(), out.data.end());
      std::vector<int32_t> own;
      for (int p = 0; p < length; ++p) own.push_back(cache.slot(first_block * 16 + p));
      Tensor list = host_tensor(own.data(), DType::kI32, {length});
      backends.ops(i).store_kv(cache.layer, sequence.qkv.view(), list, heads);
      const auto n = static_cast<int32_t>(spans.size() / 4);
      spans.insert(spans.end(), {n, 1, length - 1, first_block});
      const auto last = sequence.qkv.data.end() - heads.row_width();
      rows.insert(rows.end(), last, sequence.qkv.data.end());
      first_block += (length + 15) / 16;
    }
    BatchRows batch;
    batch.n_rows = batch.n_spans = 3;
    batch.max_context = 300;
    batch.spans = host_tensor(spans.data(), DType::kI32, {3, 4});
    batch.block_table = cache.table.vector();
    Floats together(3, 64);
    const Tensor queries = host_tensor(rows.data(), DType::kF32, {3, heads.row_width()});
    backends.ops(i).attention(together.view(), queries, cache.layer, batch, heads);
    EXPECT_TRUE(same_bits(together.data, alone)) << backends.name(i);
  }
}

TEST(AttentionRows, NoHeadsAndNoRows) {
  Backends backends({2});
  const HeadLayout none{0, 1, 8, 4, 0};
  Sequence sequence(none, KvDType::kF16, 3, 25);
  for (size_t i = 0; i < backends.size(); ++i) {
    sequence.store(backends.ops(i), 0, 3);
    Floats out(3, 0);
    sequence.attend(backends.ops(i), out.view(), 0, 3);
    Floats empty(0, 0);
    sequence.attend(backends.ops(i), empty.view(), 0, 0);
  }
}

TEST(KvCache, PageBytes) {
  EXPECT_EQ(KvLayer::page_bytes(KvDType::kF32, 8, 128), 16 * 8 * 128 * 4);
  EXPECT_EQ(KvLayer::page_bytes(KvDType::kF16, 8, 128), 16 * 8 * 128 * 2);
  EXPECT_EQ(KvLayer::page_bytes(KvDType::kQ8, 8, 128), 16 * 8 * (128 + 4 * 4));
  EXPECT_EQ(KvLayer::page_bytes(KvDType::kQ8, 1, 40), 16 * (40 + 2 * 4));
  for (const KvDType dtype : kKvTypes) EXPECT_EQ(parse_kv_dtype(kv_dtype_name(dtype)), dtype);
  EXPECT_FALSE(parse_kv_dtype("q4").has_value());
}

TEST(KvCache, SlotsOutsideAreRefused) {
  Backends backends({1});
  const HeadLayout heads{1, 1, 8, 1, 0};
  Sequence sequence(heads, KvDType::kF16, 3, 26);
  sequence.slots = {0, 1, 16};
  EXPECT_THROW(sequence.store(backends.reference(), 0, 3), Error);
  for (size_t i = 0; i < backends.size(); ++i) {
    SCOPED_TRACE(backends.name(i));
    if (backends.refuses_data(i)) {
      EXPECT_THROW(sequence.store(backends.ops(i), 0, 3), Error);
    } else {
      sequence.store(backends.ops(i), 0, 3);  // writes nothing out of bounds
    }
  }
}

}  // namespace
}  // namespace glm::testing
