// NCCL's header is there. SPDX-License-Identifier: MIT
#include "parallel/nccl_version.h"

#include <fmt/format.h>
#include <nccl.h>

namespace glm {

std::string nccl_version_text() {
  return fmt::format("{}.{}.{} (header only)", NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
}

}  // namespace glm
