// Shares of a synthetic model made by the CUDA kernels, in memory that the host cannot touch, are
// those of the file. SPDX-License-Identifier: MIT
#include "kernels/cuda/cuda_ops.h"
#include "tests/model/synthetic_samples.h"
#include "tests/support/emulated_device.h"

namespace glm {
namespace {

TEST(CudaSynthetic, EveryDtypeAndGridHasTheBytesOfTheFile) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ80, DType::kQ40}) {
    SCOPED_TRACE(dtype_name(dtype));
    const SyntheticCase model("glm4_moe_air", default_dtypes(dtype), true);
    for (const GridShape& shape : synthetic_grids(true))
      for (const Numerics numerics : {Numerics::kDefault, Numerics::kReproducible}) {
        testing_support::EmulatedDevice device;
        cuda_emulated::CudaOps ops(device, OpsLimits{}, device.stream(), "cuda emulated");
        model.expect_same(shape, numerics, device, ops);
      }
  }
}

}  // namespace
}  // namespace glm
