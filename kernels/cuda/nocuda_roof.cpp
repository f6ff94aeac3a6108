// Builds without CUDA. SPDX-License-Identifier: MIT
#include "kernels/device_roof.h"

namespace glm {
namespace {

[[noreturn]] void no_cuda(const Device& device) {
  fail(ExitCode::kUsage, "{}: this build has no CUDA: configure with -DGLM_CUDA=ON", device.name());
}

}  // namespace

double read_on_device(Device& device, Tensor, Tensor) { no_cuda(device); }
double int8_on_device(Device& device, int64_t, Tensor) { no_cuda(device); }

}  // namespace glm
