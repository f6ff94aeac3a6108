// Builds without CUDA. SPDX-License-Identifier: MIT
#include "kernels/device_sum.h"

namespace glm {

void sum_pieces_on_device(Device& device, float*, const float*, int64_t, int) {
  fail(ExitCode::kUsage, "{}: this build has no CUDA: configure with -DGLM_CUDA=ON", device.name());
}

}  // namespace glm
