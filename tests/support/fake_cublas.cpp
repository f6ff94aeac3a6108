// A libcublas for machines without a GPU: the functions that kernels/cuda/blas.cpp looks up, on the
// streams of emulated devices (emulated_device.h). Calls that the real one would refuse, or that
// would be wrong inside a recorded step (no stream, no workspace), are refused.
// GLM_FAKE_CUBLAS="create" or "gemm": what fails. SPDX-License-Identifier: MIT
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <cublas_v2.h>

#include "kernels/cuda/emulator.h"

struct cublasContext {
  glm::emulator::Queue* queue = nullptr;
  bool has_stream = false;
  void* workspace = nullptr;
  size_t workspace_bytes = 0;
};

namespace {

bool told_to_fail(const char* what) {
  const char* variable = std::getenv("GLM_FAKE_CUBLAS");
  return variable != nullptr && std::strcmp(variable, what) == 0;
}

float half_number(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  float magnitude = std::ldexp(static_cast<float>(fraction), -24);
  if (exponent == 31)
    magnitude = fraction == 0 ? HUGE_VALF : std::nanf("");
  else if (exponent > 0)
    magnitude = std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return bits >> 15 != 0 ? -magnitude : magnitude;
}

// c [n][m] (+)= b [n][k] a [m][k]^T, seen row by row.
struct Gemm {
  int m, n, k;
  const uint16_t* a;
  const uint16_t* b;
  float* c;
  int lda, ldb, ldc;
  bool bf16;
  float beta;

  float number(uint16_t bits) const {
    return bf16 ? std::bit_cast<float>(uint32_t{bits} << 16) : half_number(bits);
  }
  void run() const {
    std::vector<float> row(static_cast<size_t>(k));
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < k; ++i) row[static_cast<size_t>(i)] = number(b[int64_t{j} * ldb + i]);
      for (int i = 0; i < m; ++i) {
        float sums[4] = {};
        for (int l = 0; l < k; ++l)
          sums[l % 4] += number(a[int64_t{i} * lda + l]) * row[static_cast<size_t>(l)];
        float& out = c[int64_t{j} * ldc + i];
        const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        out = beta == 0 ? sum : out + sum;
      }
    }
  }
};

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (told_to_fail("create")) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetProperty(libraryPropertyType type, int* value) {
  *value = type == MAJOR_VERSION ? 99 : type == MINOR_VERSION ? 1 : 2;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->queue = reinterpret_cast<glm::emulator::Queue*>(stream);
  handle->has_stream = true;
  handle->workspace = nullptr;  // as the real one does
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = workspace;
  handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle,
                            cublasOperation_t transa,
                            cublasOperation_t transb,
                            int m,
                            int n,
                            int k,
                            const void* alpha,
                            const void* a,
                            cudaDataType a_type,
                            int lda,
                            const void* b,
                            cudaDataType b_type,
                            int ldb,
                            const void* beta,
                            void* c,
                            cudaDataType c_type,
                            int ldc,
                            cublasComputeType_t compute,
                            cublasGemmAlgo_t) {
  if (told_to_fail("gemm")) return CUBLAS_STATUS_EXECUTION_FAILED;
  // Only what is used: the first matrix turned, the second not.
  const bool sizes = m > 0 && n > 0 && k > 0 && lda >= k && ldb >= k && ldc >= m;
  const bool types = a_type == b_type && (a_type == CUDA_R_16F || a_type == CUDA_R_16BF) &&
                     c_type == CUDA_R_32F && compute == CUBLAS_COMPUTE_32F;
  const float factor = *static_cast<const float*>(alpha);
  const float old = *static_cast<const float*>(beta);
  if (transa != CUBLAS_OP_T || transb != CUBLAS_OP_N || !sizes || !types || factor != 1 ||
      (old != 0 && old != 1))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!handle->has_stream || handle->workspace == nullptr || handle->workspace_bytes < (4 << 20))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const Gemm gemm{m,
                  n,
                  k,
                  static_cast<const uint16_t*>(a),
                  static_cast<const uint16_t*>(b),
                  static_cast<float*>(c),
                  lda,
                  ldb,
                  ldc,
                  a_type == CUDA_R_16BF,
                  old};
  if (handle->queue == nullptr)
    gemm.run();
  else
    handle->queue->enqueue([gemm] { gemm.run(); });
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "as the test told it";
}

}  // extern "C"
