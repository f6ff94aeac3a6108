// Takes the place of the CUDA device and its operations at link time: a program linked with this
// sees GLM_EMULATED_GPUS GPUs (1 without it) of GLM_EMULATED_GPU_BYTES each.
// SPDX-License-Identifier: MIT
#include <cstdlib>

#include "kernels/cuda/collectives.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/device_sum.h"
#include "tests/support/emulated_device.h"

namespace glm {
namespace {

int64_t number_of(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoll(text);
}

}  // namespace

std::unique_ptr<Device> make_cuda_device(int index, double timeout_seconds) {
  GLM_CHECK(index >= 0 && index < cuda_device_count(), "GPU {}", index);
  return std::make_unique<testing_support::EmulatedDevice>(
      index, number_of("GLM_EMULATED_GPU_BYTES", int64_t{1} << 34), timeout_seconds);
}

std::string cuda_device_id(int index) { return fmt::format("emulated {}", index); }

std::string cuda_device_uuid(int index) { return fmt::format("GPU-emulated-{}", index); }

int cuda_device_count() { return static_cast<int>(number_of("GLM_EMULATED_GPUS", 1)); }

std::string cuda_version_text() { return "emulated"; }

// A real cuBLAS is not meant for emulated devices.
std::unique_ptr<Ops> make_cuda_ops(Device& device, const OpsLimits& limits) {
  setenv("GLM_CUBLAS_LIBRARY", "off", 0);
  return std::make_unique<cuda_emulated::CudaOps>(device, limits, device.stream(), "cuda emulated");
}

int64_t cuda_ops_scratch_bytes(const OpsLimits& limits) {
  return cuda_emulated::CudaScratchPlan(limits).total();
}

void sum_pieces_on_device(
    Device& device, float* out, const float* pieces, int64_t n, int n_pieces) {
  cuda_emulated::sum_pieces({out, pieces, n, n_pieces}, device.stream());
}

}  // namespace glm
