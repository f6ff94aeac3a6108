// SPDX-License-Identifier: MIT
#include "core/base/tensor.h"

#include <algorithm>

namespace glm {

int64_t Tensor::cols() const {
  int64_t product = rank == 0 ? 0 : 1;
  for (int i = 1; i < rank; ++i) product *= dim(i);
  return product;
}

Tensor Tensor::slice(int64_t begin, int64_t count) const {
  GLM_CHECK(begin >= 0 && count >= 0 && begin + count <= rows(),
            "rows [{}, {}) of {}",
            begin,
            begin + count,
            shape_text());
  Tensor view = *this;
  if (data != nullptr) view.data = as<char>() + begin * cols() * dtype_size(dtype);
  view.dims[0] = count;
  return view;
}

Tensor Tensor::reshaped(std::initializer_list<int64_t> new_dims) const {
  Tensor view = *this;
  view.rank = static_cast<int>(new_dims.size());
  GLM_CHECK(view.rank >= 1 && view.rank <= 4, "rank {}", view.rank);
  view.dims = {};
  std::copy(new_dims.begin(), new_dims.end(), view.dims.begin());
  GLM_CHECK(view.elements() == elements(), "{} as {}", shape_text(), view.shape_text());
  return view;
}

std::string Tensor::shape_text() const {
  if (absent()) return "absent";
  std::string text = "[";
  for (int i = 0; i < rank; ++i) text += fmt::format("{}{}", i == 0 ? "" : ", ", dim(i));
  return text + fmt::format("] {}", dtype_name(dtype));
}

Tensor host_tensor(void* data, DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor;
  tensor.data = data;
  tensor.dtype = dtype;
  tensor.rank = static_cast<int>(dims.size());
  GLM_CHECK(tensor.rank >= 1 && tensor.rank <= 4, "rank {}", tensor.rank);
  std::copy(dims.begin(), dims.end(), tensor.dims.begin());
  return tensor;
}

}  // namespace glm
