// Tensors as bytes, on the host or on a device. SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/base/device.h"

namespace glm {

inline void copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, static_cast<size_t>(bytes));
}

inline int64_t row_bytes(Tensor tensor) { return tensor.cols() * dtype_size(tensor.dtype); }

inline bool on_host(Tensor tensor) { return tensor.device == nullptr || tensor.device->is_host(); }

// What a group of one does in place of gathering. A device copies for itself.
inline void copy_alone(Tensor out, Tensor in) {
  if (out.data == in.data) return;
  if (on_host(out) && on_host(in))
    copy_bytes(out.as<std::byte>(), in.as<std::byte>(), in.bytes());
  else
    (on_host(out) ? in : out).device->copy(out, in);
}

// Bytes [begin, begin + count) of a tensor.
inline Tensor bytes_of(Tensor tensor, int64_t begin, int64_t count) {
  Tensor bytes = host_tensor(tensor.as<std::byte>() + begin, DType::kU8, {count});
  bytes.device = tensor.device;
  return bytes;
}

}  // namespace glm
