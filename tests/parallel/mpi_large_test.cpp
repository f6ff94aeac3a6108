// Messages that MPI's int counts cannot hold. Needs 5 GB of memory. SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "core/base/device.h"
#include "tests/support/mpi_world.h"

namespace glm {
namespace {

TEST(MpiLarge, AMessageAboveTwoGibibytesArrivesWhole) {
  constexpr int64_t kBytes = (int64_t{1} << 31) + 4097;
  const auto device = make_cpu_device();
  const Tensor data = device->allocate(DType::kU8, {kBytes});
  auto* bytes = data.as<uint8_t>();
  const auto value = [](int64_t i) { return static_cast<uint8_t>(i / 4096 + i); };
  if (mpi_world().rank() == 0)
    for (int64_t i = 0; i < kBytes; ++i) bytes[i] = value(i);
  mpi_world().broadcast(data, 0);
  int64_t wrong = 0;
  for (int64_t i = 0; i < kBytes; ++i) wrong += bytes[i] != value(i);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace glm
