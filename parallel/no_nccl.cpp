// Builds without NCCL. SPDX-License-Identifier: MIT
#include "parallel/nccl_version.h"

namespace glm {

std::string nccl_version_text() { return "not built in"; }

}  // namespace glm
