// Rows of logits that do not fit into memory: a file without a name, which goes away with the
// program whatever ends it. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

namespace glm {

class RowFile {
 public:
  // In the folder for temporary files (TMPDIR). Takes the whole space at once; throws
  // Error(kResources) where there is less.
  RowFile(int64_t n_rows, int64_t cols);
  ~RowFile();
  RowFile(const RowFile&) = delete;
  RowFile& operator=(const RowFile&) = delete;

  void write(int64_t row, std::span<const float> values);
  void read(int64_t row, std::span<float> values) const;

 private:
  int64_t cols_;
  int file_ = -1;
};

}  // namespace glm
