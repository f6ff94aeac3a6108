// Operations that move and add rows, and the trace of all. SPDX-License-Identifier: MIT
#include <cmath>

#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

TEST(Embed, RowsOfTheShardAndZerosElsewhere) {
  Backends backends({2});
  for (const Format& format : all_formats()) {
    const Matrix table(format.dtype, format.packing, 1, 16, 64, 71);
    const Weight& w = table.weight();
    on_all(backends, [&](Ops& ops) {
      Ints ids({99, 100, 115, 116, 107, -1}, 1);
      Floats out(6, 64, 72);
      ops.embed(out.view(), ids.vector(), w, 100);
      std::vector<float> row(64);
      for (size_t t = 0; t < 6; ++t) {
        const int id = ids.data[t] - 100;
        std::fill(row.begin(), row.end(), 0.0f);
        if (id >= 0 && id < 16)
          decode_row(w.values, w.scales, 16, 64, w.dtype, w.packing, id, row.data());
        for (size_t c = 0; c < 64; ++c) EXPECT_EQ(out.data[t * 64 + c], row[c]);
      }
    });
  }
}

TEST(Rows, GatherOfBothTypesAndItsLimits) {
  Backends backends({2});
  on_all(backends, [&](Ops& ops) {
    Floats x(3, 2), out(4, 2);
    x.data = {1, 2, 3, 4, 5, 6};
    Ints index({2, 0, 0, 1}, 1);
    ops.gather_rows(out.view(), x.view(), index.vector());
    EXPECT_EQ(out.data, (std::vector<float>{5, 6, 1, 2, 1, 2, 3, 4}));
    Ints numbers({7, 8, 9}, 1), picked({0, 0, 0, 0}, 1);
    ops.gather_rows(picked.vector(), numbers.vector(), index.vector());
    EXPECT_EQ(picked.data, (std::vector<int32_t>{9, 7, 7, 8}));
  });
}

TEST(Rows, GatherOfRowsOutside) {
  Backends backends({2});
  const auto gather = [&](Ops& ops, int32_t outside) {
    Floats x(3, 2), out(4, 2);
    Ints index({2, outside, 0, 1}, 1);
    ops.gather_rows(out.view(), x.view(), index.vector());
    return out.data;
  };
  for (const int32_t outside : {3, -1}) {
    EXPECT_THROW(gather(backends.reference(), outside), Error);
    for (size_t i = 0; i < backends.size(); ++i) {
      SCOPED_TRACE(backends.name(i));
      if (backends.refuses_data(i)) {
        EXPECT_THROW(gather(backends.ops(i), outside), Error);
      } else {
        EXPECT_TRUE(std::isnan(gather(backends.ops(i), outside)[2]));
      }
    }
  }
}

TEST(Rows, AddConcatAndPad) {
  Backends backends({2});
  on_all(backends, [&](Ops& ops) {
    Floats x(2, 3, 75), y(2, 3, 76);
    const std::vector<float> before = x.data;
    ops.add(x.view(), y.view());
    for (size_t i = 0; i < 6; ++i) EXPECT_EQ(x.data[i], before[i] + y.data[i]);
    Floats slices(1, 8), joined(2, 4);
    slices.data = {1, 2, 3, 4, 5, 6, 7, 8};  // [2, 1], [2, 0], [2, 3]
    ops.concat_columns(joined.view(), slices.vector(), {1, 0, 3});
    EXPECT_EQ(joined.data, (std::vector<float>{1, 3, 4, 5, 2, 6, 7, 8}));
    EXPECT_THROW(ops.concat_columns(joined.view(), slices.vector(), {1, 2}), Error);
    Floats padded(2, 5, 77), in(2, 2);
    in.data = {1, 2, 3, 4};
    ops.pad_columns(padded.view(), in.view(), 2);
    EXPECT_EQ(padded.data, (std::vector<float>{0, 0, 1, 2, 0, 0, 0, 3, 4, 0}));
    EXPECT_THROW(ops.pad_columns(padded.view(), in.view(), 4), Error);
  });
}

TEST(Trace, RecordsBytesAndOperations) {
  Backends backends({1});
  Trace trace;
  Ops& ops = backends.fastest();
  ops.set_trace(&trace);
  const Matrix matrix(DType::kQ40, Packing::kTile16, 1, 16, 64, 78);
  Floats x(2, 64, 79), out(2, 16);
  ops.linear(out.view(), x.view(), matrix.weight());
  ops.linear(out.view(), x.view(), matrix.weight());
  ops.set_trace(nullptr);
  const SpanTotal& total = trace.totals().at("op.linear");
  EXPECT_EQ(total.calls, 2);
  EXPECT_EQ(total.work.bytes, 2 * (16 * 64 / 2 + 16 * 2 * 2 + 4 * 2 * (64 + 16)));
  EXPECT_EQ(total.work.flops, 2 * 2.0 * 2 * 16 * 64);
}

}  // namespace
}  // namespace glm::testing
