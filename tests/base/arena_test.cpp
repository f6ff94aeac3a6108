// Scratch of a step: places, marks, the limit. SPDX-License-Identifier: MIT
#include "core/base/arena.h"

#include <cstdint>

#include <gtest/gtest.h>

namespace glm {
namespace {

class ArenaTest : public testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_cpu_device();
  Arena arena_{*device_, 1024};
};

TEST_F(ArenaTest, TensorsAreAlignedAndFollowEachOther) {
  const Tensor a = arena_.take(DType::kU8, {3});
  const Tensor b = arena_.take(DType::kF32, {2, 8});
  const Tensor c = arena_.take(DType::kI32, {17});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data) % 64, 0u);
  EXPECT_EQ(b.as<char>() - a.as<char>(), 64);
  EXPECT_EQ(c.as<char>() - b.as<char>(), 64);
  EXPECT_EQ(arena_.used(), 64 + 64 + 128);
  EXPECT_EQ(b.device, device_.get());
  EXPECT_EQ(b.shape_text(), "[2, 8] f32");
}

TEST_F(ArenaTest, AScopeGivesBackWhatItTook) {
  const Tensor kept = arena_.take(DType::kU8, {100});
  void* inner = nullptr;
  {
    const ArenaScope scope(arena_);
    inner = arena_.take(DType::kU8, {500}).data;
    EXPECT_EQ(arena_.used(), 128 + 512);
  }
  EXPECT_EQ(arena_.used(), 128);
  EXPECT_EQ(arena_.high_water(), 128 + 512);
  EXPECT_EQ(arena_.take(DType::kU8, {1}).data, inner);
  EXPECT_NE(kept.data, inner);
}

TEST_F(ArenaTest, ItCanBeFilledToTheLastByteAndNoFurther) {
  arena_.take(DType::kU8, {960});
  arena_.take(DType::kU8, {64});
  EXPECT_EQ(arena_.used(), arena_.capacity());
  arena_.take(DType::kU8, {0});
  try {
    arena_.take(DType::kU8, {1});
    FAIL() << "took beyond the capacity";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kRuntime);
    EXPECT_NE(std::string(error.what()).find("after 1024 of 1024"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(arena_.used(), 1024);
}

TEST_F(ArenaTest, MemoryIsTakenOnceAtTheStart) {
  const int64_t before = device_->allocated_bytes();
  for (int i = 0; i < 100; ++i) {
    const ArenaScope scope(arena_);
    arena_.take(DType::kF32, {256});
  }
  EXPECT_EQ(device_->allocated_bytes(), before);
}

}  // namespace
}  // namespace glm
