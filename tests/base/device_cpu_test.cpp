// The device contract on the CPU. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/device.h"

namespace glm {
namespace {

constexpr int64_t kMega = int64_t{1} << 20;

TEST(DeviceCpu, MemoryIsZeroedAlignedAndCounted) {
  const auto device = make_cpu_device();
  EXPECT_TRUE(device->is_host());
  EXPECT_EQ(device->name(), "cpu");
  for (const int64_t n : {int64_t{1}, int64_t{63}, int64_t{4097}, 8 * kMega - 1, 8 * kMega}) {
    const int64_t before = device->allocated_bytes();
    const Tensor tensor = device->allocate(DType::kU8, {n});
    EXPECT_EQ(tensor.device, device.get());
    const int64_t alignment = n >= 8 * kMega ? 2 * kMega : 64;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(alignment), 0u);
    EXPECT_EQ(device->allocated_bytes() - before, n);
    const auto* bytes = tensor.as<uint8_t>();
    EXPECT_TRUE(std::all_of(bytes, bytes + n, [](uint8_t byte) { return byte == 0; })) << n;
    std::memset(tensor.data, 0xFF, static_cast<size_t>(n));  // all of it can be written
  }
}

TEST(DeviceCpu, AllocationsDoNotOverlap) {
  const auto device = make_cpu_device();
  const Tensor a = device->allocate(DType::kF32, {3, 5});
  const Tensor b = device->allocate(DType::kF32, {3, 5});
  std::fill_n(a.f32(), 15, 1.0f);
  EXPECT_TRUE(std::all_of(b.f32(), b.f32() + 15, [](float value) { return value == 0.0f; }));
}

TEST(DeviceCpu, AnEmptyTensorTakesNoMemory) {
  const auto device = make_cpu_device();
  const Tensor tensor = device->allocate(DType::kF32, {0, 128});
  EXPECT_EQ(tensor.data, nullptr);
  EXPECT_EQ(tensor.cols(), 128);
  EXPECT_EQ(device->allocated_bytes(), 0);
  device->copy(tensor, tensor);
}

TEST(DeviceCpu, CopiesBytesOfEqualSizeOnly) {
  const auto device = make_cpu_device();
  const Tensor to = device->allocate(DType::kF32, {2, 3});
  std::vector<float> values = {1, 2, 3, 4, 5, 6};
  device->copy(to, host_tensor(values.data(), DType::kF32, {6}));
  device->wait();
  EXPECT_TRUE(std::equal(values.begin(), values.end(), to.f32()));
  EXPECT_THROW(device->copy(to, host_tensor(values.data(), DType::kF32, {5})), Error);
}

TEST(DeviceCpu, ReplayCallsEachTime) {
  const auto device = make_cpu_device();
  int calls = 0;
  for (int i = 0; i < 3; ++i) device->replay(1, [&] { ++calls; });
  EXPECT_EQ(calls, 3);
}

TEST(DeviceCpu, NoRoomSaysHowMuchWasAsked) {
  const auto device = make_cpu_device();
  try {
    device->allocate(DType::kU8, {int64_t{1} << 50});  // beyond the address space
    FAIL() << "1 PiB of memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kResources);
    EXPECT_NE(std::string(error.what()).find("1125899.907 GB"), std::string::npos) << error.what();
  }
  EXPECT_EQ(device->allocated_bytes(), 0);
}

}  // namespace
}  // namespace glm
