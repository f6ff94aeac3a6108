// The CUDA backend of this build. SPDX-License-Identifier: MIT
#include "kernels/cuda/cuda_ops.h"

namespace glm {

std::unique_ptr<Ops> make_cuda_ops(Device& device, const OpsLimits& limits) {
  return std::make_unique<cuda::CudaOps>(device, limits, device.stream(), "cuda");
}

int64_t cuda_ops_scratch_bytes(const OpsLimits& limits) {
  return cuda::CudaScratchPlan(limits).total();
}

}  // namespace glm
