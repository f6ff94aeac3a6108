// Bump allocator for the scratch of one step: memory is taken from the device once, at start; a
// step takes tensors from the front and gives them back all at once. Nothing is freed alone,
// nothing is allocated in a step. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <initializer_list>

#include "core/base/device.h"

namespace glm {

class Arena {
 public:
  Arena(Device& device, int64_t bytes);

  // Uninitialised memory, 64-byte aligned. Throws Error(kRuntime) when the plan was too small: a
  // bug of the plan.
  Tensor take(DType dtype, std::initializer_list<int64_t> dims);

  int64_t used() const { return used_; }
  void rewind(int64_t mark) { used_ = mark; }
  int64_t high_water() const { return high_water_; }
  int64_t capacity() const { return memory_.bytes(); }
  Device& device() const { return *memory_.device; }

  // Bytes that take() consumes for a tensor of `bytes`.
  static int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  Tensor memory_;
  int64_t used_ = 0;
  int64_t high_water_ = 0;
};

// Gives back, at the end of a scope, what was taken in it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used()) {}
  ~ArenaScope() { arena_.rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  int64_t mark_;
};

}  // namespace glm
