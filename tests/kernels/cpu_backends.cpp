// The op suite on the CPU: every instruction set of this host, with every number of threads.
// SPDX-License-Identifier: MIT
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/simd_levels.h"
#include "tests/kernels/op_support.h"

namespace glm::testing {

BackendSet make_backends(const std::vector<int>& thread_counts) {
  BackendSet set;
  set.devices.push_back(make_cpu_device());
  for (const std::string& level : simd_levels()) {
    set.fastest = set.all.size();
    for (const int threads : thread_counts) {
      auto ops = make_cpu_ops(*set.devices[0], threads, test_limits(), level);
      set.all.push_back({level + " x " + std::to_string(threads), std::move(ops)});
    }
  }
  return set;
}

}  // namespace glm::testing
