// A view of memory: no ownership, no arithmetic, trivially copyable. Owners are Device (start-up
// allocations) and Arena (scratch of one step). SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/base/check.h"
#include "core/base/dtype.h"

namespace glm {

class Device;

// Row-major, dense, of a plain (not quantised) dtype. A default-constructed Tensor is "absent".
struct Tensor {
  void* data = nullptr;
  std::array<int64_t, 4> dims{};
  int rank = 0;
  DType dtype = DType::kF32;
  Device* device = nullptr;

  int64_t dim(int i) const { return dims[static_cast<size_t>(i)]; }
  int64_t rows() const { return rank == 0 ? 0 : dims[0]; }
  // Elements of one row: the product of all dimensions but the first.
  int64_t cols() const;
  int64_t elements() const { return rows() * cols(); }
  int64_t bytes() const { return elements() * dtype_size(dtype); }
  bool absent() const { return rank == 0; }

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  float* f32() const {
    GLM_ASSERT(dtype == DType::kF32, "tensor is {}", dtype_name(dtype));
    return as<float>();
  }
  int32_t* i32() const {
    GLM_ASSERT(dtype == DType::kI32, "tensor is {}", dtype_name(dtype));
    return as<int32_t>();
  }

  // Rows [begin, begin + count) as a view.
  Tensor slice(int64_t begin, int64_t count) const;
  // The same memory with other dimensions of the same product.
  Tensor reshaped(std::initializer_list<int64_t> new_dims) const;
  std::string shape_text() const;  // "[2, 128] f32"
};

// A view of host memory that the caller owns.
Tensor host_tensor(void* data, DType dtype, std::initializer_list<int64_t> dims);

}  // namespace glm
