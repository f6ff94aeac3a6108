// What a program without CUDA in the build, or on a machine without a GPU, is told.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "core/base/device.h"

namespace glm {
namespace {

TEST(DeviceNoCuda, AskingForAGpuSaysWhatIsMissing) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  const bool built_in = cuda_version_text() != "not built in";
  try {
    make_cuda_device(0, 1.0);
    FAIL() << "made a device without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), built_in ? ExitCode::kResources : ExitCode::kUsage);
    const std::string expected = built_in ? "this process sees 0" : "-DGLM_CUDA=ON";
    EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace glm
