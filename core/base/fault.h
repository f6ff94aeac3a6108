// Places where a test build of a program can be made to fail (docs/faults.md). Programs get the
// empty function of fault_off.cpp; a test program brings its own (tests/faults/fault_point.cpp),
// which the linker then prefers. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "core/base/tensor.h"

namespace glm {

struct FaultPlace {
  const char* point = "";  // "load", "dispatch", ...
  int rank = 0;            // of the world
  int64_t step = 1;        // of the engine; the number of the tensor at "load"
  int layer = -1;
};

// data: what "corrupt" may damage, in host memory; absent where there is nothing.
void fault_point(const FaultPlace& place, Tensor data = {});

}  // namespace glm
