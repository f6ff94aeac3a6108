// cuBLAS, for products of many rows with f16 and bf16 matrices. The programs do not link it: it is
// opened at run time, so they also start where there is none (a bundle ships without it).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace glm {

// out [n, rows] = x [n, cols] w^T, or out += with `add`; w [rows, cols], all row by row. x and w
// are f16 or bf16, out and sums f32.
struct BlasProduct {
  float* out;
  const void* x;
  const void* w;
  int64_t n;
  int64_t rows;
  int64_t cols;
  bool bf16;
  bool add;
};

class Blas {
 public:
  virtual ~Blas() = default;
  virtual std::string text() const = 0;  // "cuBLAS 13.1.0"
  // Enqueues; neither waits nor allocates. Throws Error(kRuntime) when the library refuses.
  virtual void multiply(const BlasProduct& product) const = 0;
};

// What the library may use on the device, for all products.
inline constexpr int64_t kBlasWorkspace = int64_t{32} << 20;

// On `stream`, with `workspace` of kBlasWorkspace bytes of the device. The file is
// libcublas.so.<major>, or what GLM_CUBLAS_LIBRARY names. Without one (not built in, not found,
// unusable, or GLM_CUBLAS_LIBRARY=off) null, and `reason` says why.
std::unique_ptr<Blas> open_blas(void* stream, void* workspace, std::string& reason);

}  // namespace glm
