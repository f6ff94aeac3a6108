// Which NCCL the build found, for --version. SPDX-License-Identifier: MIT
#pragma once

#include <string>

namespace glm {

// "2.28.9 (header only)" or "not built in". The programs do not link NCCL: they start without it.
std::string nccl_version_text();

}  // namespace glm
