// Looks for NaN and infinities, fast enough for every step. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

namespace glm {

// The first element that is NaN or infinite; -1 when there is none.
int64_t first_not_finite(std::span<const float> values);

}  // namespace glm
