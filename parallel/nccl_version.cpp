// NCCL's header is there. SPDX-License-Identifier: MIT
#include "parallel/nccl_version.h"

#include <fmt/format.h>
#include <nccl.h>

#include "core/base/check.h"
#include "parallel/nccl_library.h"

namespace glm {

std::string nccl_version_text() {
  const std::string compiled = fmt::format("{}.{}.{}", NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
  try {
    const auto library = open_nccl();
    return fmt::format("{} ({} at run time)", compiled, nccl_number_text(library->version()));
  } catch (const Error& error) {
    return fmt::format("{} (at run time: {})", compiled, error.what());
  }
}

}  // namespace glm
