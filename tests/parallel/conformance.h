// What every communicator has to do, written once: each case is a function that all ranks of a
// world run. EXPECT only: a rank that returns early would leave the others waiting.
// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "parallel/communicator.h"

namespace glm {

struct ConformanceCase {
  const char* name;
  void (*body)(Communicator& world);
};

std::span<const ConformanceCase> conformance_cases();

}  // namespace glm
