// Reads the little-endian float32 matrices that numpy.save wrote. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace glm::testing_support {

struct NpyMatrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;
  const float* row(int64_t i) const { return values.data() + i * cols; }
};

// Throws std::runtime_error for anything but a C-ordered '<f4' matrix.
NpyMatrix read_npy(const std::string& path);

}  // namespace glm::testing_support
