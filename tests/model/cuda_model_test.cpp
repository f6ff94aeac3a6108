// Whole models on the CUDA kernels, run by the emulator: logits and greedy tokens to the bit those
// of the CPU, alone and beside ranks that compute on the CPU. SPDX-License-Identifier: MIT
#include <cstring>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_ops.h"
#include "tests/support/model_run.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* folder;
  DType dtype;
  KvDType kv_dtype;
};

std::unique_ptr<Ops> emulated(int, Device& device, const OpsLimits& limits) {
  return std::make_unique<cuda_emulated::CudaOps>(device, limits, nullptr, "cuda emulated");
}

// Rank 0 on a "GPU", the others on the CPU.
std::unique_ptr<Ops> mixed(int rank, Device& device, const OpsLimits& limits) {
  return rank == 0 ? emulated(rank, device, limits) : make_ops(OpsKind::kAuto, device, 1, limits);
}

void expect_same(const RunResult& actual, const RunResult& expected) {
  EXPECT_EQ(actual.answers, expected.answers);
  ASSERT_EQ(actual.logits.at(0).size(), expected.logits.at(0).size());
  ASSERT_FALSE(actual.logits[0].empty());
  EXPECT_EQ(std::memcmp(actual.logits[0].data(),
                        expected.logits[0].data(),
                        actual.logits[0].size() * sizeof(float)),
            0);
}

class CudaModel : public testing::TestWithParam<Case> {
 protected:
  RunResult run(const RunOptions& options) {
    return run_on_threads(converted(folder_, GetParam().dtype), options, {request_});
  }
  fs::path folder_ = fs::path(GLM_TEST_DATA) / "golden" / GetParam().folder;
  Request request_ = golden_request(read_golden(folder_));
};

TEST_P(CudaModel, HasTheBitsOfTheCpu) {
  RunOptions options;
  options.kv_dtype = GetParam().kv_dtype;
  const RunResult expected = run(options);
  options.ops_of_rank = emulated;
  expect_same(run(options), expected);
  options.max_rows = 5;
  expect_same(run(options), expected);
}

TEST_P(CudaModel, WorksBesideTheCpu) {
  RunOptions options;
  options.kv_dtype = GetParam().kv_dtype;
  options.numerics = Numerics::kReproducible;
  const RunResult expected = run(options);
  for (const GridShape& shape : {GridShape{1, 1, 2, 1}, GridShape{1, 2, 1, 1}}) {
    options.shape = shape;
    options.ops_of_rank = mixed;
    expect_same(run(options), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         CudaModel,
                         testing::Values(Case{"glm4_moe_air", DType::kF32, KvDType::kF32},
                                         Case{"glm4_moe_355b", DType::kQ40, KvDType::kF16},
                                         Case{"qwen3_moe", DType::kQ80, KvDType::kQ8},
                                         Case{"glm", DType::kQ40, KvDType::kF32}));

}  // namespace
}  // namespace glm::testing_support
