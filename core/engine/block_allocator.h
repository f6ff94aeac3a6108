// Which pages of a data rank's cache are free: integers only.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace glm {

class BlockAllocator {
 public:
  explicit BlockAllocator(int64_t n_blocks);

  int64_t n_free() const { return static_cast<int64_t>(free_.size()); }
  // `count` pages, or nothing when fewer are free.
  std::optional<std::vector<int32_t>> take(int64_t count);
  // Gives pages back. A page that is free already is an internal error.
  void release(const std::vector<int32_t>& blocks);

 private:
  std::vector<int32_t> free_;  // used from the back
  std::vector<bool> taken_;
};

}  // namespace glm
