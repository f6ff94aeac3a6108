// SPDX-License-Identifier: MIT
#include "core/engine/block_allocator.h"

#include "core/base/check.h"

namespace glm {

BlockAllocator::BlockAllocator(int64_t n_blocks) : taken_(static_cast<size_t>(n_blocks), false) {
  for (int64_t i = n_blocks - 1; i >= 0; --i) free_.push_back(static_cast<int32_t>(i));
}

std::optional<std::vector<int32_t>> BlockAllocator::take(int64_t count) {
  if (count > n_free()) return std::nullopt;
  std::vector<int32_t> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<size_t>(count));
  for (const int32_t block : blocks) taken_[static_cast<size_t>(block)] = true;
  return blocks;
}

void BlockAllocator::release(const std::vector<int32_t>& blocks) {
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    const auto index = static_cast<size_t>(*it);
    GLM_CHECK(index < taken_.size() && taken_[index], "page {} is released twice", *it);
    taken_[index] = false;
    free_.push_back(*it);
  }
}

}  // namespace glm
