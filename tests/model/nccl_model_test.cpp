// Whole models on emulated GPUs whose ranks talk over a fake NCCL: answers and logits to the bit
// those of the CPU on the same grid. SPDX-License-Identifier: MIT
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_ops.h"
#include "tests/support/emulated_device.h"
#include "tests/support/model_run.h"

namespace glm::testing_support {
namespace {

// Adds up how often its ranks have replayed recorded work.
class CountingDevice final : public EmulatedDevice {
 public:
  CountingDevice(int index, std::atomic<int64_t>& n) : EmulatedDevice(index), n_(n) {}
  ~CountingDevice() override { n_ += n_replayed(); }

 private:
  std::atomic<int64_t>& n_;
};

// Ranks below `n_gpus` have one, the others compute on the CPU.
RunOptions over_nccl(RunOptions options, int n_gpus) {
  options.nccl = n_gpus < options.shape.world() ? NcclUse::kAuto : NcclUse::kOn;
  options.device_of_rank = [n_gpus](int rank) -> std::unique_ptr<Device> {
    if (rank < n_gpus) return std::make_unique<EmulatedDevice>(rank);
    return make_cpu_device();
  };
  options.ops_of_rank = [](int, Device& device, const OpsLimits& limits) -> std::unique_ptr<Ops> {
    if (device.is_host()) return make_ops(OpsKind::kAuto, device, 1, limits);
    return std::make_unique<cuda_emulated::CudaOps>(device, limits, device.stream(), "emulated");
  };
  return options;
}

class NcclModel : public testing::Test {
 protected:
  void SetUp() override { setenv("GLM_NCCL_LIBRARY", GLM_FAKE_NCCL_LIBRARY, 1); }
  void TearDown() override { unsetenv("GLM_NCCL_LIBRARY"); }

  void expect_same_bits(const char* folder, DType dtype, const RunOptions& options, int n_gpus) {
    SCOPED_TRACE(std::string(folder) + " on " + options.shape.text());
    const auto golden = std::filesystem::path(GLM_TEST_DATA) / "golden" / folder;
    const Request request = golden_request(read_golden(golden));
    const auto model = converted(golden, dtype);
    const RunResult expected = run_on_threads(model, options, {request});
    const RunResult actual = run_on_threads(model, over_nccl(options, n_gpus), {request});
    EXPECT_EQ(actual.answers, expected.answers);
    ASSERT_EQ(actual.logits.at(0).size(), expected.logits.at(0).size());
    EXPECT_EQ(std::memcmp(actual.logits[0].data(),
                          expected.logits[0].data(),
                          actual.logits[0].size() * sizeof(float)),
              0);
  }
};

TEST_F(NcclModel, HasTheBitsOfTheCpuOnEveryKindOfGrid) {
  for (const GridShape& shape : {GridShape{1, 1, 2, 2},
                                 GridShape{1, 2, 1, 1},
                                 GridShape{2, 1, 1, 2},
                                 GridShape{1, 2, 2, 2},
                                 GridShape{2, 1, 2, 4}}) {
    RunOptions options;
    options.shape = shape;
    expect_same_bits("glm4_moe_air", DType::kQ40, options, shape.world());
  }
}

// All decode steps but the first ones of their kind are replays, messages included.
TEST_F(NcclModel, DecodeStepsOfSeveralRanksAreReplayed) {
  const auto golden = std::filesystem::path(GLM_TEST_DATA) / "golden" / "glm4_moe_air";
  Request request = golden_request(read_golden(golden));
  request.all_logits = false;
  request.max_tokens = 40;
  const auto model = converted(golden, DType::kQ40);
  // Sums only; two data ranks; rows to their experts, within a tensor group and across data ranks.
  for (const auto& [shape, exchange] :
       {std::pair{GridShape{1, 2, 2, 2}, ExchangeKind::kAuto},
        std::pair{GridShape{2, 1, 2, 2}, ExchangeKind::kAuto},
        std::pair{GridShape{1, 1, 2, 2}, ExchangeKind::kAllToAll},
        std::pair{GridShape{2, 1, 1, 2}, ExchangeKind::kAllToAll}}) {
    SCOPED_TRACE(shape.text());
    RunOptions options;
    options.shape = shape;
    options.exchange = exchange;
    const RunResult expected = run_on_threads(model, options, {request});
    std::atomic<int64_t> n_replayed{0};
    options = over_nccl(options, shape.world());
    options.device_of_rank = [&](int rank) {
      return std::make_unique<CountingDevice>(rank, n_replayed);
    };
    EXPECT_EQ(run_on_threads(model, options, {request}).answers, expected.answers);
    EXPECT_GT(n_replayed, 30 * shape.pipeline * shape.tensor);
  }
}

TEST_F(NcclModel, RowsTravelToTheirExperts) {
  RunOptions options;
  options.shape = {1, 1, 4, 4};
  options.exchange = ExchangeKind::kAllToAll;
  expect_same_bits("qwen3_moe", DType::kF32, options, 4);
}

TEST_F(NcclModel, ReproducibleModeTravelsToo) {
  RunOptions options;
  options.shape = {1, 1, 2, 1};
  options.numerics = Numerics::kReproducible;
  expect_same_bits("glm4_moe_355b", DType::kF32, options, 2);
}

TEST_F(NcclModel, AGridWithARankOnTheCpu) {
  RunOptions options;
  options.shape = {1, 2, 2, 2};
  options.numerics = Numerics::kReproducible;
  expect_same_bits("glm4_moe_air", DType::kQ80, options, 3);
}

}  // namespace
}  // namespace glm::testing_support
