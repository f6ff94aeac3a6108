// The roofs of a GPU that is none, in place of a real one. SPDX-License-Identifier: MIT
#include "kernels/cuda/roof.h"
#include "kernels/device_roof.h"

namespace glm {

double read_on_device(Device& device, Tensor memory, Tensor sink) {
  cuda_emulated::read_all({memory.as<const uint8_t>(), memory.bytes() / 16, sink.as<uint32_t>()},
                          device.stream());
  return static_cast<double>(memory.bytes());
}

double int8_on_device(Device& device, int64_t blocks, Tensor sink) {
  cuda_emulated::int8_products({sink.as<uint32_t>()}, blocks, device.stream());
  return cuda_emulated::kInt8Operations * static_cast<double>(blocks);
}

}  // namespace glm
