// Which NCCL the build and the machine have, for --version. SPDX-License-Identifier: MIT
#pragma once

#include <string>

namespace glm {

// "2.28.9 (2.28.9 at run time)", "2.28.9 (at run time: NCCL cannot be loaded: ...)" or "not built
// in". The programs do not link NCCL: they start without it.
std::string nccl_version_text();

}  // namespace glm
