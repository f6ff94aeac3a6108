// What only the CPU backend has: instruction sets, scratch of threads. SPDX-License-Identifier: MIT
#include <cstdlib>

#include "kernels/cpu/simd_levels.h"
#include "tests/kernels/op_support.h"

namespace glm::testing {
namespace {

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

// A GPU that no build has.
class NoGpu final : public Device {
  std::string name() const override { return "cuda:9 (none)"; }
  bool is_host() const override { return false; }
  Tensor allocate(DType, std::initializer_list<int64_t>) override {
    fail(ExitCode::kResources, "no memory");
  }
  Tensor allocate_host(DType, std::initializer_list<int64_t>) override {
    fail(ExitCode::kResources, "no memory");
  }
  int64_t allocated_bytes() const override { return 0; }
  void copy(Tensor, Tensor) override {}
  void wait() override {}
  void replay(uint64_t, const std::function<void()>&) override {}
};

TEST(MakeOps, AGpuTakesOnlyItsOwnOperations) {
  NoGpu gpu;
  for (const OpsKind kind : {OpsKind::kRef, OpsKind::kChecked}) {
    try {
      make_ops(kind, gpu, 1, test_limits());
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
    }
  }
  EXPECT_THROW(make_ops(OpsKind::kAuto, gpu, 1, test_limits()), Error);
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
