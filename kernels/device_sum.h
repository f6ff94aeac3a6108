// The one kernel that groups of ranks need themselves. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "core/base/device.h"

namespace glm {

// On a device of make_cuda_device, enqueued: out[i] := ((pieces[0][i] + pieces[1][i]) + ...),
// pieces [n_pieces][n]. out may be one of the pieces. Without CUDA in the build an Error(kUsage).
void sum_pieces_on_device(Device& device, float* out, const float* pieces, int64_t n, int n_pieces);

}  // namespace glm
