// The emulated GPU keeps the device contract, and catches what a real one would let pass now and
// then: early reads, late writes, host accesses. SPDX-License-Identifier: MIT
#include "tests/support/emulated_device.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace glm::testing_support {
namespace {

Tensor view(std::vector<int32_t>& values) {
  return host_tensor(values.data(), DType::kI32, {static_cast<int64_t>(values.size())});
}

std::vector<int32_t> read_back(EmulatedDevice& device, Tensor tensor) {
  std::vector<int32_t> values(static_cast<size_t>(tensor.elements()), -1);
  device.copy(view(values), tensor);
  device.wait();
  return values;
}

TEST(EmulatedDevice, CopiesAtWaitAndNotBefore) {
  EmulatedDevice device;
  std::vector<int32_t> values = {1, 2, 3}, out(3, 0);
  const Tensor there = device.allocate(DType::kI32, {3});
  device.copy(there, view(values));
  device.copy(view(out), there);
  EXPECT_EQ(out, (std::vector<int32_t>{0, 0, 0}));
  values[0] = 7;  // too early: the copy sees it
  device.wait();
  EXPECT_EQ(out, (std::vector<int32_t>{7, 2, 3}));
}

TEST(EmulatedDevice, ReplaysWhatItHasRecorded) {
  EmulatedDevice device;
  const Tensor from = device.allocate(DType::kI32, {2});
  const Tensor to = device.allocate(DType::kI32, {2});
  int called = 0;
  for (int32_t round = 1; round <= 5; ++round) {
    std::vector<int32_t> values = {round, -round};
    device.copy(from, view(values));
    device.replay(9, [&] {
      ++called;
      device.copy(to, from);
    });
    EXPECT_EQ(read_back(device, to), values);
  }
  EXPECT_EQ(called, 2);  // once at once, once to record
  EXPECT_EQ(device.n_replayed(), 4);
}

TEST(EmulatedDeviceDeathTest, TheHostCannotTouchItsMemory) {
  EmulatedDevice device;
  const Tensor tensor = device.allocate(DType::kI32, {2});
  device.wait();
  EXPECT_DEATH(tensor.i32()[0] = 1, "");
}

TEST(EmulatedDevice, HasAnEnd) {
  EmulatedDevice device(0, 1000);
  device.allocate(DType::kU8, {600});
  EXPECT_THROW(device.allocate(DType::kU8, {600}), Error);
  EXPECT_EQ(device.allocated_bytes(), 600);
}

}  // namespace
}  // namespace glm::testing_support
