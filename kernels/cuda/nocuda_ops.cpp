// Builds without CUDA. SPDX-License-Identifier: MIT
#include "kernels/cuda/cuda_ops.h"

namespace glm {

std::unique_ptr<Ops> make_cuda_ops(Device& device, const OpsLimits&) {
  fail(ExitCode::kUsage, "{}: this build has no CUDA: configure with -DGLM_CUDA=ON", device.name());
}

int64_t cuda_ops_scratch_bytes(const OpsLimits&) { return 0; }

}  // namespace glm
