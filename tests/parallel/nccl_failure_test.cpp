// How groups of ranks with a GPU each fail, over a fake NCCL. SPDX-License-Identifier: MIT
#include <chrono>

#include <gtest/gtest.h>

#include "tests/parallel/gpu_ranks.h"

namespace glm {
namespace {

using testing_support::contains;
using testing_support::filled;
using testing_support::gpu_error;
using testing_support::GpuJob;
using testing_support::GpuRank;
using testing_support::Variable;

// The first three pieces of work connect the ranks.

const StepContext kPlace{"decode", 12, 17, "attention"};

TEST(NcclFailure, TheDeadlineNamesRankVerbGroupPlaceAndNumber) {
  const Variable fault("GLM_FAKE_NCCL", "stall=4");
  GpuJob job;
  job.timeout = 0.6;
  job.context = &kPlace;
  const std::string text = gpu_error(job, [](const GpuRank& rank) {
    const Tensor x = filled(rank.device, 2, 1);
    rank.group.all_reduce_sum(x);
    rank.device.wait();
  });
  EXPECT_TRUE(contains(text, "(emulated): work not done after 0.6 s; rank ")) << text;
  EXPECT_TRUE(contains(text,
                       ") in all_reduce of group world, layer 17 (attention), decode step 12, seq "
                       "1 (NCCL); raise --timeout"))
      << text;
}

TEST(NcclFailure, TheDeadlineNamesFirstAndLastOfSeveralVerbs) {
  GpuJob job;
  job.timeout = 0.4;
  const std::string text = gpu_error(job, [](const GpuRank& rank) {
    const Tensor x = filled(rank.device, 2, 1);
    if (rank.group.rank() == 1) return;
    rank.group.broadcast(x, 1);
    rank.group.all_reduce_sum(x);
    rank.device.wait();
  });
  EXPECT_TRUE(contains(text,
                       "between broadcast of group world, seq 1 and all_reduce of group world, seq "
                       "2 (NCCL)"))
      << text;
}

TEST(NcclFailure, AnAsynchronousErrorEndsTheWait) {
  const Variable fault("GLM_FAKE_NCCL", "error=4");
  GpuJob job;
  job.context = &kPlace;
  const auto start = std::chrono::steady_clock::now();
  const std::string text = gpu_error(job, [](const GpuRank& rank) {
    const Tensor x = filled(rank.device, 2, 1);
    rank.group.all_reduce_sum(x);
    rank.device.wait();
  });
  EXPECT_TRUE(contains(text,
                       "): NCCL: remote process exited or there was a network error (a fake one) "
                       "from work enqueued before in all_reduce of group world, layer 17"))
      << text;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(NcclFailure, ACallThatFailsIsNamed) {
  const Variable fault("GLM_FAKE_NCCL", "call=4");
  const std::string text = gpu_error({}, [](const GpuRank& rank) {
    const Tensor x = filled(rank.device, 2, 1);
    rank.group.broadcast(x, 0);
    rank.device.wait();
  });
  EXPECT_TRUE(contains(text, "from ncclBroadcast in broadcast of group world, seq 1")) << text;
}

TEST(NcclFailure, AMissingRankEndsTheStartAtTheDeadline) {
  const Variable fault("GLM_FAKE_NCCL", "init");
  GpuJob job;
  job.timeout = 0.4;
  const std::string text = gpu_error(job, [](const GpuRank&) {});
  EXPECT_TRUE(contains(text, "waited 0.4 s for ncclCommInitRankConfig in init of group world"))
      << text;
}

TEST(NcclFailure, DifferentSizesAreFound) {
  GpuJob job;
  job.timeout = 2;
  const std::string text = gpu_error(job, [](const GpuRank& rank) {
    const Tensor x = filled(rank.device, 4, 1);
    rank.group.all_reduce_sum(x.slice(0, 2 + rank.group.rank()));
    rank.device.wait();
  });
  EXPECT_TRUE(contains(text, "in all_reduce of group world, seq 1")) << text;
}

}  // namespace
}  // namespace glm
