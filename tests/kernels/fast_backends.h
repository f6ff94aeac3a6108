// Backends that may leave the definition's bits, defined once in every program that has some: the
// emulated CUDA kernels, or a GPU. SPDX-License-Identifier: MIT
#pragma once

#include "tests/kernels/op_support.h"

namespace glm::testing {

BackendSet make_fast_backends();

inline OpsLimits fast_limits() {
  OpsLimits limits = test_limits();
  limits.fast = true;
  return limits;
}

struct FastBackends {
  BackendSet set = make_fast_backends();
};

}  // namespace glm::testing
