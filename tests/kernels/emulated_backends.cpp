// The op suite on the CUDA kernels, run by the emulator: threads of a block in ascending and in
// descending order, which differ where a barrier is missing. The CPU stands beside them: but for
// products of f16 and bf16, the bits are the same. SPDX-License-Identifier: MIT
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cuda/cuda_ops.h"
#include "tests/kernels/backwards_queue.h"
#include "tests/kernels/fast_backends.h"

namespace glm::testing {

BackendSet make_backends(const std::vector<int>&) {
  BackendSet set;
  set.thorough = false;
  set.devices.push_back(make_cpu_device());
  Device& device = *set.devices[0];
  static BackwardsAtOnce backwards;
  const auto emulated = [&](const char* name, emulator::Queue* stream, const OpsLimits& limits) {
    auto ops = std::make_unique<cuda_emulated::CudaOps>(device, limits, stream, name);
    set.all.push_back({name, std::move(ops), false, false});
  };
  emulated("cuda emulated", nullptr, test_limits());
  // Without room for parts of attention, a block walks all splits of its row.
  OpsLimits short_context = test_limits();
  short_context.max_context = 256;
  emulated("cuda emulated backwards", &backwards, short_context);
  set.all.push_back({"cpu", make_cpu_ops(device, 1, test_limits(), "")});
  return set;
}

BackendSet make_fast_backends() {
  BackendSet set;
  set.devices.push_back(make_cpu_device());
  static BackwardsAtOnce backwards;
  for (const bool ascending : {true, false}) {
    const char* name = ascending ? "cuda emulated" : "cuda emulated backwards";
    emulator::Queue* stream = ascending ? nullptr : &backwards;
    auto ops =
        std::make_unique<cuda_emulated::CudaOps>(*set.devices[0], fast_limits(), stream, name);
    set.all.push_back({name, std::move(ops), false, false});
  }
  return set;
}

}  // namespace glm::testing
