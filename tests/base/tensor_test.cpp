// Views: sizes, slices, other shapes, what is refused. SPDX-License-Identifier: MIT
#include "core/base/tensor.h"

#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

namespace glm {
namespace {

static_assert(std::is_trivially_copyable_v<Tensor>);

TEST(Tensor, ADefaultOneIsAbsent) {
  const Tensor tensor;
  EXPECT_TRUE(tensor.absent());
  EXPECT_EQ(tensor.rows(), 0);
  EXPECT_EQ(tensor.cols(), 0);
  EXPECT_EQ(tensor.bytes(), 0);
  EXPECT_EQ(tensor.shape_text(), "absent");
}

TEST(Tensor, SizesOfEveryRank) {
  EXPECT_EQ(host_tensor(nullptr, DType::kF32, {7}).cols(), 1);
  EXPECT_EQ(host_tensor(nullptr, DType::kF32, {7}).bytes(), 28);
  EXPECT_EQ(host_tensor(nullptr, DType::kBF16, {7, 3}).bytes(), 42);
  EXPECT_EQ(host_tensor(nullptr, DType::kU8, {2, 3, 5, 7}).cols(), 105);
  EXPECT_EQ(host_tensor(nullptr, DType::kI32, {2, 0, 5}).bytes(), 0);
  EXPECT_EQ(host_tensor(nullptr, DType::kF16, {2, 3, 4}).shape_text(), "[2, 3, 4] f16");
  EXPECT_THROW(host_tensor(nullptr, DType::kF32, {}), Error);
  EXPECT_THROW(host_tensor(nullptr, DType::kF32, {1, 1, 1, 1, 1}), Error);
}

TEST(Tensor, ASliceIsAViewOfWholeRows) {
  std::vector<float> values(24);
  const Tensor tensor = host_tensor(values.data(), DType::kF32, {4, 2, 3});
  const Tensor slice = tensor.slice(1, 2);
  EXPECT_EQ(slice.f32(), values.data() + 6);
  EXPECT_EQ(slice.shape_text(), "[2, 2, 3] f32");
  EXPECT_EQ(tensor.slice(4, 0).rows(), 0);
  EXPECT_EQ(tensor.slice(1, 3).slice(2, 1).f32(), values.data() + 18);
  EXPECT_THROW(tensor.slice(3, 2), Error);
  EXPECT_THROW(tensor.slice(-1, 1), Error);
  EXPECT_THROW(tensor.slice(0, -1), Error);
  // Shapes without memory, as the plan uses them.
  EXPECT_EQ(host_tensor(nullptr, DType::kF32, {4, 2}).slice(2, 2).data, nullptr);
}

TEST(Tensor, ReshapingKeepsMemoryAndCount) {
  std::vector<float> values(24);
  const Tensor tensor = host_tensor(values.data(), DType::kF32, {4, 6});
  EXPECT_EQ(tensor.reshaped({2, 3, 4}).shape_text(), "[2, 3, 4] f32");
  EXPECT_EQ(tensor.reshaped({24}).f32(), values.data());
  EXPECT_THROW(tensor.reshaped({5, 5}), Error);
  EXPECT_THROW(tensor.reshaped({}), Error);
  EXPECT_THROW(tensor.reshaped({1, 1, 1, 1, 24}), Error);
}

}  // namespace
}  // namespace glm
