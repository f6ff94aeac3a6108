// The device contract on a GPU: memory, copies, graphs, errors, the deadline.
// SPDX-License-Identifier: MIT
#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/device.h"

namespace glm {
namespace {

constexpr double kTimeout = 20.0;

class DeviceCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU on this machine";
    device_ = make_cuda_device(0, kTimeout);
  }

  std::vector<int32_t> read(const Tensor& tensor) {
    std::vector<int32_t> values(static_cast<size_t>(tensor.elements()), -1);
    device_->copy(host(values), tensor);
    device_->wait();
    return values;
  }

  static Tensor host(std::vector<int32_t>& values) {
    return host_tensor(values.data(), DType::kI32, {static_cast<int64_t>(values.size())});
  }

  std::unique_ptr<Device> device_;
};

TEST_F(DeviceCuda, MemoryIsZeroedAlignedAndCounted) {
  EXPECT_FALSE(device_->is_host());
  EXPECT_TRUE(device_->name().starts_with("cuda:0"));
  for (const int64_t n : {1, 3, 1000, 1 << 20}) {
    const int64_t before = device_->allocated_bytes();
    const Tensor tensor = device_->allocate(DType::kI32, {n});
    EXPECT_EQ(tensor.device, device_.get());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % 64, 0u);
    EXPECT_EQ(device_->allocated_bytes() - before, n * 4);
    EXPECT_EQ(read(tensor), std::vector<int32_t>(static_cast<size_t>(n), 0));
  }
  EXPECT_EQ(device_->allocate(DType::kI32, {0, 5}).data, nullptr);
}

TEST_F(DeviceCuda, CopiesInEveryDirectionInOrder) {
  std::vector<int32_t> values(100'003);
  std::iota(values.begin(), values.end(), 7);
  const auto n = static_cast<int64_t>(values.size());
  const Tensor a = device_->allocate(DType::kI32, {n});
  const Tensor b = device_->allocate(DType::kI32, {n});
  device_->copy(a, host(values));
  device_->copy(b, a);
  EXPECT_EQ(read(b), values);
  device_->copy(b.slice(0, 2), a.slice(5, 2));
  EXPECT_EQ(read(b.slice(0, 3)), (std::vector<int32_t>{12, 13, 9}));
  EXPECT_THROW(device_->copy(a, b.slice(0, 1)), Error);
}

TEST_F(DeviceCuda, ReplayRecordsAtTheSecondCallOfAKey) {
  const Tensor from = device_->allocate(DType::kI32, {4});
  const Tensor to = device_->allocate(DType::kI32, {8});
  int recorded = 0;
  const auto step = [&](uint64_t key, int64_t place) {
    device_->replay(key, [&] {
      ++recorded;
      device_->copy(to.slice(place, 4), from);
    });
  };
  for (int32_t round = 1; round <= 4; ++round) {
    std::vector<int32_t> values(4, round);
    device_->copy(from, host(values));
    step(1, 0);
    EXPECT_EQ(read(to.slice(0, 4)), values);
  }
  EXPECT_EQ(recorded, 2);
  step(2, 4);
  EXPECT_EQ(recorded, 3);
  EXPECT_EQ(read(to), std::vector<int32_t>(8, 4));
}

TEST_F(DeviceCuda, ARecordingThatFailsLeavesTheDeviceUsable) {
  const Tensor tensor = device_->allocate(DType::kI32, {4});
  EXPECT_THROW(device_->replay(1, [] { fail(ExitCode::kRuntime, "on purpose"); }), Error);
  EXPECT_THROW(device_->replay(1, [&] { device_->wait(); }), Error);
  EXPECT_THROW(device_->replay(1, [&] { device_->allocate(DType::kI32, {4}); }), Error);
  EXPECT_EQ(read(tensor), std::vector<int32_t>(4, 0));
}

TEST_F(DeviceCuda, NoRoomSaysHowMuchIsFree) {
  try {
    device_->allocate(DType::kU8, {int64_t{1} << 45});
    FAIL() << "32 TB of GPU memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kResources);
    EXPECT_NE(std::string(error.what()).find(" GB are free"), std::string::npos) << error.what();
  }
  EXPECT_EQ(device_->allocated_bytes(), 0);
  EXPECT_EQ(read(device_->allocate(DType::kI32, {2})), std::vector<int32_t>(2, 0));
}

TEST_F(DeviceCuda, WaitGivesUpAtTheDeadline) {
  const auto hasty = make_cuda_device(0, 1e-6);
  // 16 copies of 512 MiB take milliseconds on any GPU.
  const Tensor a = hasty->allocate(DType::kU8, {int64_t{1} << 29});
  const Tensor b = hasty->allocate(DType::kU8, {int64_t{1} << 29});
  for (int i = 0; i < 16; ++i) hasty->copy(b, a);
  try {
    hasty->wait();
    FAIL() << "8 GiB copied within a microsecond";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kCommunication);
    EXPECT_NE(std::string(error.what()).find("--timeout"), std::string::npos) << error.what();
  }
}

TEST_F(DeviceCuda, AnIndexBeyondTheLastGpuIsAnError) {
  for (const int index : {-1, cuda_device_count()}) {
    try {
      make_cuda_device(index, kTimeout);
      FAIL() << index;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kResources);
    }
  }
}

}  // namespace
}  // namespace glm
