// SPDX-License-Identifier: MIT
#include "kernels/cuda/blas.h"

#include <cstdlib>
#include <limits>

#include <cublas_v2.h>
#include <dlfcn.h>

#include "core/base/check.h"

namespace glm {
namespace {

// Every function, with the type that cublas_v2.h gives it.
struct BlasTable {
  decltype(&cublasCreate_v2) create;
  decltype(&cublasDestroy_v2) destroy;
  decltype(&cublasGetProperty) get_property;
  decltype(&cublasSetStream_v2) set_stream;
  decltype(&cublasSetWorkspace_v2) set_workspace;
  cublasStatus_t (*gemm)(cublasHandle_t,  // spelled out: C++ gets a second one of the name
                         cublasOperation_t,
                         cublasOperation_t,
                         int,
                         int,
                         int,
                         const void*,
                         const void*,
                         cudaDataType,
                         int,
                         const void*,
                         cudaDataType,
                         int,
                         const void*,
                         void*,
                         cudaDataType,
                         int,
                         cublasComputeType_t,
                         cublasGemmAlgo_t);
  decltype(&cublasGetStatusString) status_string;
};

template <class Function>
bool find_blas(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  return function != nullptr;
}

bool find_all_blas(void* handle, BlasTable& table) {
  return find_blas(handle, "cublasCreate_v2", table.create) &&
         find_blas(handle, "cublasDestroy_v2", table.destroy) &&
         find_blas(handle, "cublasGetProperty", table.get_property) &&
         find_blas(handle, "cublasSetStream_v2", table.set_stream) &&
         find_blas(handle, "cublasSetWorkspace_v2", table.set_workspace) &&
         find_blas(handle, "cublasGemmEx", table.gemm) &&
         find_blas(handle, "cublasGetStatusString", table.status_string);
}

int blas_size(int64_t n) {
  GLM_CHECK(n > 0 && n <= std::numeric_limits<int>::max(), "cuBLAS: a size of {}", n);
  return static_cast<int>(n);
}

class OpenBlas final : public Blas {
 public:
  explicit OpenBlas(const BlasTable& table) : table_(table) {}
  OpenBlas(const OpenBlas&) = delete;
  OpenBlas& operator=(const OpenBlas&) = delete;
  ~OpenBlas() override {
    if (handle_ != nullptr) table_.destroy(handle_);
  }

  // Empty, or what went wrong.
  std::string begin(void* stream, void* workspace) {
    cublasStatus_t status = table_.create(&handle_);
    if (status == CUBLAS_STATUS_SUCCESS)
      status = table_.set_stream(handle_, static_cast<cudaStream_t>(stream));
    // After set_stream, which takes the library's own workspace again.
    if (status == CUBLAS_STATUS_SUCCESS)
      status = table_.set_workspace(handle_, workspace, static_cast<size_t>(kBlasWorkspace));
    return status == CUBLAS_STATUS_SUCCESS ? "" : escaped(table_.status_string(status));
  }

  std::string text() const override {
    int version[3] = {};
    const libraryPropertyType parts[3] = {MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
    for (int i = 0; i < 3; ++i) table_.get_property(parts[i], &version[i]);
    return fmt::format("cuBLAS {}.{}.{}", version[0], version[1], version[2]);
  }

  // cuBLAS thinks in columns: what stands row by row is the transposed matrix to it. out^T [rows,
  // n] = (w as it stands: [cols, rows])^T times (x as it stands: [cols, n]).
  void multiply(const BlasProduct& p) const override {
    const float one = 1;
    const float sum = p.add ? 1 : 0;
    const cudaDataType type = p.bf16 ? CUDA_R_16BF : CUDA_R_16F;
    const cublasStatus_t status = table_.gemm(handle_,
                                              CUBLAS_OP_T,
                                              CUBLAS_OP_N,
                                              blas_size(p.rows),
                                              blas_size(p.n),
                                              blas_size(p.cols),
                                              &one,
                                              p.w,
                                              type,
                                              blas_size(p.cols),
                                              p.x,
                                              type,
                                              blas_size(p.cols),
                                              &sum,
                                              p.out,
                                              CUDA_R_32F,
                                              blas_size(p.rows),
                                              CUBLAS_COMPUTE_32F,
                                              CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS)
      fail(ExitCode::kRuntime,
           "cuBLAS: product of {} rows with a matrix of {} x {}: {}; GLM_CUBLAS_LIBRARY=off goes "
           "without",
           p.n,
           p.rows,
           p.cols,
           escaped(table_.status_string(status)));
  }

 private:
  BlasTable table_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace

// The library stays open to the end of the process.
std::unique_ptr<Blas> open_blas(void* stream, void* workspace, std::string& reason) {
  const char* named = std::getenv("GLM_CUBLAS_LIBRARY");
  std::string file = fmt::format("libcublas.so.{}", CUBLAS_VER_MAJOR);
  if (named != nullptr && *named != '\0') file = named;
  if (file == "off") {
    reason = "GLM_CUBLAS_LIBRARY=off";
    return nullptr;
  }
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* said = dlerror();
    reason = escaped(said == nullptr ? file : said);
    return nullptr;
  }
  BlasTable table{};
  if (!find_all_blas(handle, table)) {
    reason = escaped(file) + " lacks functions of cuBLAS";
    return nullptr;
  }
  auto blas = std::make_unique<OpenBlas>(table);
  reason = blas->begin(stream, workspace);
  if (!reason.empty()) return nullptr;
  return blas;
}

}  // namespace glm
