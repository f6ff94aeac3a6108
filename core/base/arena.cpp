// SPDX-License-Identifier: MIT
#include "core/base/arena.h"

#include <algorithm>

namespace glm {

Arena::Arena(Device& device, int64_t bytes) : memory_(device.allocate(DType::kU8, {bytes})) {}

Tensor Arena::take(DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor = host_tensor(nullptr, dtype, dims);
  tensor.device = memory_.device;
  const int64_t bytes = padded(tensor.bytes());
  GLM_CHECK(used_ + bytes <= capacity(),
            "step scratch: {} more bytes for {} after {} of {}",
            bytes,
            tensor.shape_text(),
            used_,
            capacity());
  tensor.data = memory_.as<char>() + used_;
  used_ += bytes;
  high_water_ = std::max(high_water_, used_);
  return tensor;
}

}  // namespace glm
