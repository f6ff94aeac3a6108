// Whole models on the CUDA kernels and the emulated GPU: logits and greedy tokens to the bit those
// of the CPU, alone, beside ranks that compute on the CPU, and on several GPUs.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_ops.h"
#include "tests/support/emulated_device.h"
#include "tests/support/model_run.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* folder;
  DType dtype;
  KvDType kv_dtype;
};

// Ranks below `n_gpus` have one, the others compute on the CPU.
RunOptions with_gpus(RunOptions options, int n_gpus, bool fast = false) {
  options.device_of_rank = [n_gpus](int rank) -> std::unique_ptr<Device> {
    if (rank < n_gpus) return std::make_unique<EmulatedDevice>(rank);
    return make_cpu_device();
  };
  options.ops_of_rank = [fast](int, Device& device, OpsLimits limits) -> std::unique_ptr<Ops> {
    if (device.is_host()) return make_ops(OpsKind::kAuto, device, 1, limits);
    limits.fast = fast;
    return std::make_unique<cuda_emulated::CudaOps>(device, limits, device.stream(), "emulated");
  };
  return options;
}

// Says how often it has replayed recorded work.
class CountedDevice final : public EmulatedDevice {
 public:
  explicit CountedDevice(std::atomic<int64_t>& n) : n_(n) {}
  ~CountedDevice() override { n_ += n_replayed(); }

 private:
  std::atomic<int64_t>& n_;
};

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
  options = with_gpus(options, 1);
  expect_same(run(options), expected);
  options.max_rows = 5;
  expect_same(run(options), expected);
}

// Attention of the prompt on tensor cores: other bits, the same tokens. With f32 weights, as any
// difference can change how quantised activations are rounded.
TEST_P(CudaModel, AnswersAlikeWhenItMayLeaveTheBits) {
  RunOptions options;
  options.kv_dtype = GetParam().kv_dtype;
  ASSERT_GE(request_.prompt.size(), 32u);
  const fs::path model = converted(folder_, DType::kF32);
  const RunResult expected = run_on_threads(model, options, {request_});
  const RunResult actual = run_on_threads(model, with_gpus(options, 1, true), {request_});
  EXPECT_EQ(actual.answers, expected.answers);
  const std::vector<float>& want = expected.logits.at(0);
  ASSERT_EQ(actual.logits.at(0).size(), want.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::fabs(double{want[i]}));
    difference = std::max(difference, std::fabs(double{want[i]} - double{actual.logits[0][i]}));
  }
  EXPECT_GT(difference, 0);
  const double bound = GetParam().kv_dtype == KvDType::kF32 ? 1e-4 : 0.01;
  EXPECT_LT(difference, bound * largest);
}

// All steps but the prompt's and the first decode are replays of the one that was recorded.
TEST_P(CudaModel, ReplaysItsDecodeSteps) {
  RunOptions options;
  options.kv_dtype = GetParam().kv_dtype;
  request_.all_logits = false;
  request_.max_tokens = 40;  // the context passes a power of two on the way
  const RunResult expected = run(options);
  ASSERT_EQ(expected.answers[0].size(), 40u);
  std::atomic<int64_t> n_replayed{0};
  options = with_gpus(options, 1);
  options.device_of_rank = [&](int) { return std::make_unique<CountedDevice>(n_replayed); };
  EXPECT_EQ(run(options).answers, expected.answers);
  EXPECT_GT(n_replayed, 30);
}

TEST_P(CudaModel, WorksBesideTheCpu) {
  RunOptions options;
  options.kv_dtype = GetParam().kv_dtype;
  options.numerics = Numerics::kReproducible;
  const RunResult expected = run(options);
  for (const GridShape& shape : {GridShape{1, 1, 2, 1}, GridShape{1, 2, 1, 1}}) {
    options.shape = shape;
    expect_same(run(with_gpus(options, 1)), expected);
  }
}

// Several GPUs that talk by way of their hosts: the bits of the CPU on the same grid.
TEST_P(CudaModel, WorksOnGrids) {
  RunOptions options;
  options.kv_dtype = GetParam().kv_dtype;
  const bool is_moe = std::string_view(GetParam().folder) != "glm";
  std::vector<GridShape> shapes = legal_grids(2, is_moe);
  shapes.push_back({1, 2, 2, is_moe ? 2 : 1});
  if (is_moe) shapes.push_back({2, 1, 2, 4});
  for (const GridShape& shape : shapes) {
    options.shape = shape;
    for (const ExchangeKind kind : {ExchangeKind::kAuto, ExchangeKind::kAllToAll}) {
      if (kind == ExchangeKind::kAllToAll && shape.expert == 1) continue;
      options.exchange = kind;
      expect_same(run(with_gpus(options, shape.world())), run(options));
    }
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
