// A stream on which kernels run at once, the threads of a block in descending order.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>

#include "kernels/cuda/emulator.h"

namespace glm::testing {

class BackwardsAtOnce final : public emulator::Queue {
 public:
  void enqueue(std::function<void()> work) override { work(); }
  bool backwards() const override { return true; }
};

}  // namespace glm::testing
