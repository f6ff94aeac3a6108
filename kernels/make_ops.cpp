// Chooses the backend. SPDX-License-Identifier: MIT
#include "kernels/checked_ops.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/simd_levels.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/ref/ref_ops.h"

namespace glm {

std::unique_ptr<Ops> make_ops(OpsKind kind, Device& device, int threads, const OpsLimits& limits) {
  if (!device.is_host()) {
    if (kind == OpsKind::kAuto) return make_cuda_ops(device, limits);
    fail(ExitCode::kUsage, "--ops ref and checked run on the CPU, not on {}", device.name());
  }
  GLM_CHECK(threads >= 1, "{} threads", threads);
  if (kind == OpsKind::kRef) return std::make_unique<RefOps>();
  auto fast = make_cpu_ops(device, threads, limits, simd_from_environment());
  if (kind == OpsKind::kChecked)
    return std::make_unique<CheckedOps>(std::move(fast), std::make_unique<RefOps>());
  return fast;
}

int64_t ops_scratch_bytes(OpsKind kind, int threads, const OpsLimits& limits) {
  return kind == OpsKind::kRef ? 0 : cpu_ops_scratch_bytes(threads, limits);
}

}  // namespace glm
