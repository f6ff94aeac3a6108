// Builds without CUDA. SPDX-License-Identifier: MIT
#include "core/base/device.h"

namespace glm {

std::unique_ptr<Device> make_cuda_device(int, double) {
  fail(ExitCode::kUsage, "this build has no CUDA: configure with -DGLM_CUDA=ON");
}

int cuda_device_count() { return 0; }

std::string cuda_device_id(int) { return {}; }

std::string cuda_device_uuid(int) { return {}; }

std::string cuda_version_text() { return "not built in"; }

}  // namespace glm
