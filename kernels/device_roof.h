// The roofs of a GPU, beside which its measurements stand. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "core/base/device.h"

namespace glm {

struct DeviceRoofs {
  double read_bytes_per_second = 0;  // a kernel that reads all words of a memory
  double copy_bytes_per_second = 0;  // device to device, bytes read and bytes written
  double int8_per_second = 0;        // operations of the mma instruction that the kernels use
};

// The best of `repeats` measurements over `bytes` of memory (1 GiB to leave the caches; the work on
// int8 follows it). The device keeps twice that. Throws Error(kResources) without room.
DeviceRoofs measure_device_roofs(Device& device, int64_t bytes, int repeats);

// Both enqueue one pass on a device of make_cuda_device and return its bytes or operations. `sink`
// has room for a word. Without CUDA in the build an Error(kUsage).
double read_on_device(Device& device, Tensor memory, Tensor sink);
double int8_on_device(Device& device, int64_t blocks, Tensor sink);

}  // namespace glm
