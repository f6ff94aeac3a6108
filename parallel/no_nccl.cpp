// Builds without NCCL. SPDX-License-Identifier: MIT
#include "core/base/check.h"
#include "parallel/nccl_library.h"
#include "parallel/nccl_version.h"

namespace glm {

std::string nccl_version_text() { return "not built in"; }

std::shared_ptr<const NcclLibrary> open_nccl() {
  fail(ExitCode::kUsage, "this build has no NCCL: configure with -DGLM_NCCL=ON");
}

}  // namespace glm
