// Tensors of messages: as bytes, on the host or on a device; what verbs demand of them.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/base/device.h"
#include "parallel/communicator.h"

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

// What every carrier demands of the arguments of a verb.
inline void check_all_to_all(const AllToAllPart& part, int size) {
  const auto n = static_cast<size_t>(size);
  GLM_CHECK(part.recv_rows.size() == n && part.send_rows.size() == n &&
                part.out.dtype == part.in.dtype && part.out.rows() == total_rows(part.recv_rows) &&
                part.in.rows() == total_rows(part.send_rows) &&
                (part.out.cols() == part.in.cols() || part.out.elements() == 0 ||
                 part.in.elements() == 0),
            "all_to_all of {} to {}",
            part.in.shape_text(),
            part.out.shape_text());
}

inline void check_reduce_scatter(
    Tensor out, Tensor in, std::span<const int64_t> rows, int rank, int size) {
  GLM_CHECK(rows.size() == static_cast<size_t>(size) && in.dtype == DType::kF32 &&
                out.dtype == in.dtype && in.rows() == total_rows(rows) &&
                out.rows() == rows[static_cast<size_t>(rank)] &&
                (out.cols() == in.cols() || out.elements() == 0),
            "reduce_scatter of {} to {}",
            in.shape_text(),
            out.shape_text());
}

}  // namespace glm
