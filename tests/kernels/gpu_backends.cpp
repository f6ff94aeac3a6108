// The op suite on GPU 0, with the CPU beside it for the bits. Without a GPU the program says so and
// CTest counts it as skipped. SPDX-License-Identifier: MIT
#include <cstdio>

#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/fast_backends.h"
#include "tests/kernels/mirrored_ops.h"

namespace glm::testing {
namespace {

constexpr double kSeconds = 60;
constexpr int kSkipped = 77;

}  // namespace

BackendSet make_backends(const std::vector<int>&) {
  BackendSet set;
  set.devices.push_back(make_cpu_device());
  set.devices.push_back(make_cuda_device(0, kSeconds));
  Device& gpu = *set.devices[1];
  auto ops = make_ops(OpsKind::kAuto, gpu, 1, test_limits());
  auto mirrored = std::make_unique<MirroredOps>(gpu, std::move(ops));
  set.all.push_back({gpu.name(), std::move(mirrored), false, false});
  set.all.push_back({"cpu", make_cpu_ops(*set.devices[0], 1, test_limits(), "")});
  return set;
}

BackendSet make_fast_backends() {
  BackendSet set;
  set.devices.push_back(make_cuda_device(0, kSeconds));
  Device& gpu = *set.devices[0];
  OpsLimits limits = fast_limits();
  limits.half_weights = true;
  auto ops = make_ops(OpsKind::kAuto, gpu, 1, limits);
  set.all.push_back({gpu.name(), std::make_unique<MirroredOps>(gpu, std::move(ops)), false, false});
  return set;
}

// By cuBLAS where it is installed.
TEST(FastProducts, AgreeWithTheReference) {
  FastBackends backends;
  const Backend& gpu = backends.set.all[0];
  if (!gpu.ops->note().empty()) GTEST_SKIP() << gpu.ops->note();
  const auto cpu = make_cpu_device();
  const auto reference = make_ops(OpsKind::kRef, *cpu, 1, test_limits());
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const int64_t cols : {36, 4096, 12288}) {
      SCOPED_TRACE(fmt::format("{} {}", dtype_name(dtype), cols));
      const Matrix matrix(dtype, Packing::kRows, 1, 34, cols, 61);
      Floats x(130, cols, 62), out(130, 34), expected(130, 34);
      gpu.ops->linear(out.view(), x.view(), matrix.weight());
      reference->linear(expected.view(), x.view(), matrix.weight());
      expect_within(
          out.view(), expected.view(), linear_tolerance(x.view(), matrix.weight(), 0, {}, true));
      Floats gated(130, 17), expected_gated(130, 17);
      gpu.ops->gate_up(gated.view(), x.view(), matrix.weight());
      reference->gate_up(expected_gated.view(), x.view(), matrix.weight());
      expect_within(gated.view(),
                    expected_gated.view(),
                    gate_up_tolerance(x.view(), matrix.weight(), 0, true));
    }
  }
}

// Each operation recorded once and replayed gives what it gives at once.
TEST(Graphs, ARecordedProductIsTheEagerOne) {
  const auto gpu = make_cuda_device(0, kSeconds);
  const auto ops = make_ops(OpsKind::kAuto, *gpu, 1, test_limits());
  const Tensor x = gpu->allocate(DType::kF32, {3, 64});
  const Tensor weight = gpu->allocate(DType::kF32, {64});
  const Tensor norm = gpu->allocate(DType::kF32, {3, 64});
  const Tensor out = gpu->allocate(DType::kF32, {3, 16});
  const Matrix matrix(DType::kQ40, Packing::kTile16, 1, 16, 64, 1);
  Weight w = matrix.weight();
  const Tensor values = gpu->allocate(DType::kU8, {w.value_stride()});
  const Tensor scales = gpu->allocate(DType::kU8, {w.scale_stride()});
  gpu->copy(values,
            host_tensor(
                const_cast<void*>(w.values), DType::kU8, {static_cast<int64_t>(w.value_stride())}));
  gpu->copy(scales, host_tensor(const_cast<void*>(w.scales), DType::kU8, {w.scale_stride()}));
  w.values = values.data;
  w.scales = scales.data;
  Floats ones(1, 64);
  for (float& one : ones.data) one = 1.0f;
  gpu->copy(weight, ones.vector());
  const auto step = [&] {
    ops->rms_norm(norm, x, weight, 1e-5f);
    ops->linear(out, norm, w);
  };
  for (uint64_t key : {2, 3, 4}) {
    Floats input(3, 64, key), eager(3, 16), replayed(3, 16);
    gpu->copy(x, input.view());
    step();
    gpu->copy(eager.view(), out);
    gpu->wait();
    gpu->replay(1, step);
    gpu->copy(replayed.view(), out);
    gpu->wait();
    EXPECT_TRUE(same_bits(eager.data, replayed.data));
  }
}

}  // namespace glm::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (glm::cuda_device_count() == 0) {
    std::puts("skipped: no GPU on this machine");
    return glm::testing::kSkipped;
  }
  return RUN_ALL_TESTS();
}
