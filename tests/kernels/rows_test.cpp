// Operations that move and add rows, and the trace of all. SPDX-License-Identifier: MIT
#include <cstdlib>

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
    index.data[1] = 3;
    EXPECT_THROW(ops.gather_rows(out.view(), x.view(), index.vector()), Error);
    index.data[1] = -1;
    EXPECT_THROW(ops.gather_rows(out.view(), x.view(), index.vector()), Error);
  });
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

TEST(Scratch, PlannedBytesAreTakenBytesAndNoMore) {
  for (const int threads : {1, 2, 5}) {
    const auto device = make_cpu_device();
    const OpsLimits limits{100, 2048, 3000, 12, 80};
    const auto ops = make_ops(OpsKind::kAuto, *device, threads, limits);
    EXPECT_EQ(device->allocated_bytes(), ops_scratch_bytes(OpsKind::kAuto, threads, limits));
    const int64_t taken = device->allocated_bytes();
    const Matrix matrix(DType::kQ40, Packing::kRows, 1, 21, 2048, 80);
    Floats x(100, 2048, 81), out(100, 21), more(101, 2048), wide(101, 21);
    ops->linear(out.view(), x.view(), matrix.weight());
    EXPECT_EQ(device->allocated_bytes(), taken);
    EXPECT_THROW(ops->linear(wide.view(), more.view(), matrix.weight()), Error);
  }
}

TEST(SimdLevels, ForcedLevelsAndRefusals) {
  std::string names;
  for (const std::string& level : simd_levels()) {
    EXPECT_EQ(std::string(choose_kernels(level).name), level);
    names += " " + level;
  }
  RecordProperty("levels", names);
  std::printf("instruction sets of this host:%s\n", names.c_str());
  EXPECT_EQ(std::string(choose_kernels("").name), simd_levels().back());
  try {
    choose_kernels("sse9\n");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

TEST(SimdLevels, EnvironmentForcesALevel) {
  const auto device = make_cpu_device();
  const auto named = [&] {
    return make_ops(OpsKind::kAuto, *device, 1, {1, 32, 16, 1, 16})->name();
  };
  ASSERT_EQ(setenv("GLM_SIMD", "scalar", 1), 0);
  EXPECT_EQ(named(), "cpu scalar");
  ASSERT_EQ(setenv("GLM_SIMD", "neon", 1), 0);
  EXPECT_THROW(named(), Error);
  ASSERT_EQ(unsetenv("GLM_SIMD"), 0);
  EXPECT_EQ(named(), "cpu " + simd_levels().back());
}

}  // namespace
}  // namespace glm::testing
