// The op suite on GPU 0, with the CPU beside it for the bits. Without a GPU the program says so and
// CTest counts it as skipped. SPDX-License-Identifier: MIT
#include <cstdio>

#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/mirrored_ops.h"
#include "tests/kernels/op_support.h"

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
