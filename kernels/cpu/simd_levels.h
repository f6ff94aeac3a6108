// Choice of the instruction set. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/cpu/simd.h"

namespace glm {

// Names of the levels this CPU has, slowest first.
std::vector<std::string> simd_levels();
// The table of the level `forced`, or of the fastest one when empty. Throws Error(kUsage) for an
// unknown name or a level this CPU lacks.
const KernelTable& choose_kernels(std::string_view forced);
// GLM_SIMD, empty when unset.
std::string_view simd_from_environment();

}  // namespace glm
