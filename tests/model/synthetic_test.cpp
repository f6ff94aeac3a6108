// Shares of a synthetic model that ranks make for themselves are those of the file.
// SPDX-License-Identifier: MIT
#include "tests/model/synthetic_samples.h"

namespace glm {
namespace {

void expect_same_on_cpu(const SyntheticCase& model, bool is_moe, OpsKind kind, int threads) {
  const auto device = make_cpu_device();
  const auto ops = make_ops(kind, *device, threads, OpsLimits{});
  for (const GridShape& shape : synthetic_grids(is_moe))
    for (const Numerics numerics : {Numerics::kDefault, Numerics::kReproducible})
      model.expect_same(shape, numerics, *device, *ops);
}

TEST(SyntheticWeights, EveryDtypeAndGridHasTheBytesOfTheFile) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ80, DType::kQ40}) {
    SCOPED_TRACE(dtype_name(dtype));
    expect_same_on_cpu(
        SyntheticCase("glm4_moe_air", default_dtypes(dtype)), true, OpsKind::kAuto, 3);
  }
}

TEST(SyntheticWeights, OtherFamiliesAndMixedDtypes) {
  const DTypeChoice mixed{DType::kQ80, DType::kQ40, DType::kF16};
  expect_same_on_cpu(SyntheticCase("glm4_moe_355b", mixed, true), true, OpsKind::kAuto, 2);
  expect_same_on_cpu(SyntheticCase("chatglm", {}), false, OpsKind::kAuto, 2);
  expect_same_on_cpu(SyntheticCase("qwen3", mixed), false, OpsKind::kChecked, 2);
}

}  // namespace
}  // namespace glm
