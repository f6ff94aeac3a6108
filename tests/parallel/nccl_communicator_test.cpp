// Groups of ranks with a GPU each, over a fake NCCL: the conformance cases with every tensor on the
// device, recorded verbs, and what is decided for which group.
// SPDX-License-Identifier: MIT
#include "parallel/nccl_communicator.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

#include "parallel/nccl_version.h"
#include "parallel/process_grid.h"
#include "tests/parallel/conformance.h"
#include "tests/parallel/gpu_ranks.h"
#include "tests/support/mirrored_group.h"

namespace glm {
namespace {

using testing_support::contains;
using testing_support::EmulatedDevice;
using testing_support::filled;
using testing_support::first_of;
using testing_support::gpu_error;
using testing_support::GpuJob;
using testing_support::GpuRank;
using testing_support::MirroredGroup;
using testing_support::run_gpu_ranks;
using testing_support::Variable;

using NcclParam = std::tuple<int, size_t>;

class NcclConformance : public testing::TestWithParam<NcclParam> {};

TEST_P(NcclConformance, OnTheDevice) {
  const auto [ranks, index] = GetParam();
  GpuJob job;
  job.ranks = ranks;
  run_gpu_ranks(job, [&, i = index](const GpuRank& rank) {
    MirroredGroup mirrored(rank.group, rank.device);
    conformance_cases()[i].body(mirrored);
  });
}

std::string nccl_case_name(const testing::TestParamInfo<NcclParam>& info) {
  return std::string(conformance_cases()[std::get<1>(info.param)].name) + "On" +
         std::to_string(std::get<0>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Cases,
                         NcclConformance,
                         testing::Combine(testing::Values(1, 2, 3),
                                          testing::Range<size_t>(0, conformance_cases().size())),
                         nccl_case_name);

TEST(NcclGroup, SumsBeyondTheStageAreTakenInRounds) {
  GpuJob job;
  job.stage_bytes = 100'000;
  run_gpu_ranks(job, [](const GpuRank& rank) {
    MirroredGroup mirrored(rank.group, rank.device);
    for (const ConformanceCase& one : conformance_cases())
      if (std::string(one.name).find("RankOrder") != std::string::npos) one.body(mirrored);
  });
}

TEST(NcclGroup, TensorsOfTheHostGoToTheHosts) {
  run_gpu_ranks({}, [](const GpuRank& rank) {
    for (const ConformanceCase& one : conformance_cases()) one.body(rank.group);
  });
}

TEST(NcclGroup, VerbsAreRecordedAndReplayed) {
  run_gpu_ranks({}, [](const GpuRank& rank) {
    const auto self = static_cast<size_t>(rank.group.rank());
    const Tensor x = filled(rank.device, 3, 1);
    const Tensor all = filled(rank.device, 6, 0);
    const Tensor mine = filled(rank.device, 8, 0);
    const std::vector<int64_t> rows = {3, 3}, sent = {2, 4}, received(2, sent[self]);
    int calls = 0;
    for (int i = 0; i < 5; ++i) {
      rank.device.replay(7, [&] {
        rank.group.all_reduce_sum(x);
        rank.group.all_gather(all, x, rows);
        rank.group.all_to_all(mine.slice(0, 2 * sent[self]), received, all, sent);
        ++calls;
      });
      const auto expected = static_cast<float>(2 << i);
      EXPECT_EQ(first_of(rank.device, x), expected);
      EXPECT_EQ(first_of(rank.device, all.slice(5, 1)), expected);
      EXPECT_EQ(first_of(rank.device, mine.slice(2 * sent[self] - 1, 1)), expected);
    }
    EXPECT_EQ(calls, 2);
  });
}

TEST(NcclGroup, PartsOfAnExchangeTravelTheirOwnWays) {
  GpuJob job;
  job.ranks = 3;
  run_gpu_ranks(job, [](const GpuRank& rank) {
    const std::vector<int64_t> ones(3, 1);
    const auto self = static_cast<float>(rank.group.rank());
    std::vector<float> in(3, self), out(3, -1);
    const Tensor sent = filled(rank.device, 3, 10 + self);
    const Tensor received = filled(rank.device, 3, -1);
    const AllToAllPart parts[] = {{host_tensor(out.data(), DType::kF32, {3, 1}),
                                   ones,
                                   host_tensor(in.data(), DType::kF32, {3, 1}),
                                   ones},
                                  {received, ones, sent, ones, true}};
    rank.group.all_to_all_start(parts);
    EXPECT_THROW(rank.group.all_reduce_sum(received), Error) << "before all_to_all_wait";
    rank.group.all_to_all_wait();
    for (int peer = 0; peer < 3; ++peer) {
      EXPECT_EQ(out[static_cast<size_t>(peer)], static_cast<float>(peer));
      const float expected = peer == rank.group.rank() ? -1 : static_cast<float>(10 + peer);
      EXPECT_EQ(first_of(rank.device, received.slice(peer, 1)), expected);
    }
  });
}

// --- which group uses what

std::string transport_of(const GpuJob& job) {
  std::string text;
  run_gpu_ranks(job, [&](const GpuRank& rank) {
    const Tensor x = filled(rank.device, 2, 1);
    rank.group.all_reduce_sum(x);
    EXPECT_EQ(first_of(rank.device, x), static_cast<float>(job.ranks));
    if (rank.hosts.rank() == 0) text = rank.groups.transport_text();
  });
  return text;
}

TEST(NcclChoice, GpusOfTheirOwnUseNccl) {
  GpuJob job;
  job.nccl = NcclUse::kAuto;
  EXPECT_TRUE(contains(transport_of(job), "NCCL 2."));
}

TEST(NcclChoice, SharedGpusGoThroughTheHosts) {
  GpuJob job;
  job.ranks = 3;
  job.nccl = NcclUse::kAuto;
  job.gpu_of_rank = [](int rank) { return rank / 2; };
  EXPECT_TRUE(contains(transport_of(job), "host memory: ranks 0 and 1 share a GPU of host "));
  const Variable told("NCCL_MULTI_RANK_GPU_ENABLE", "1");
  const Variable version("GLM_FAKE_NCCL", "version=23007");
  EXPECT_EQ(transport_of(job), "NCCL 2.30.7");
}

TEST(NcclChoice, WithoutTheLibraryThroughTheHosts) {
  GpuJob job;
  job.nccl = NcclUse::kAuto;
  job.library = "/no/such/libnccl.so.2";
  const std::string text = transport_of(job);
  EXPECT_TRUE(contains(text, "host memory: rank 0 (host ")) << text;
  EXPECT_TRUE(contains(text, "NCCL cannot be loaded: /no/such/libnccl.so.2")) << text;
  EXPECT_TRUE(contains(text, "name the file in GLM_NCCL_LIBRARY")) << text;
  job.nccl = NcclUse::kOn;
  EXPECT_TRUE(contains(gpu_error(
                           job, [](const GpuRank&) {}, ExitCode::kUsage),
                       "NCCL cannot serve group world: rank 0 (host "));
}

TEST(NcclChoice, AnOldLibraryIsNotUsed) {
  const Variable version("GLM_FAKE_NCCL", "version=21700");
  GpuJob job;
  job.nccl = NcclUse::kAuto;
  EXPECT_TRUE(contains(transport_of(job), "NCCL 2.17.0 is too old, 2.18.0 or newer is needed"));
}

TEST(NcclChoice, AnotherLibraryIsNoNccl) {
  GpuJob job;
  job.nccl = NcclUse::kAuto;
  job.library = "libm.so.6";
  EXPECT_TRUE(contains(transport_of(job), "libm.so.6 has no function ncclGetVersion"));
}

TEST(NcclChoice, SwitchedOff) {
  GpuJob job;
  job.nccl = NcclUse::kOff;
  EXPECT_TRUE(contains(transport_of(job), "NCCL is switched off"));
}

// The library with another version on one rank.
TEST(NcclChoice, DifferentVersionsAreRefusedByAll) {
  const Variable library("GLM_NCCL_LIBRARY", GLM_FAKE_NCCL_LIBRARY);
  std::atomic<int> refused{0};
  run_thread_ranks(3, {}, [&](Communicator& hosts) {
    EmulatedDevice device(hosts.rank());
    DeviceLink link;
    link.device = &device;
    if (hosts.rank() == 2) setenv("GLM_FAKE_NCCL", "version=23007", 1);
    hosts.barrier();
    link.open = [&] {
      // One after the other, because the fake has one version at a time.
      std::shared_ptr<const NcclLibrary> opened;
      for (int turn = 2; turn >= 0; --turn) {
        if (turn == hosts.rank()) opened = open_nccl();
        hosts.barrier();
        if (turn == 2 && hosts.rank() == 2) unsetenv("GLM_FAKE_NCCL");
        hosts.barrier();
      }
      return opened;
    };
    try {
      DeviceGroups groups(hosts, link);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_TRUE(contains(error.what(), "ranks have different versions of NCCL: rank 0 (host "));
      EXPECT_TRUE(contains(error.what(), ", rank 2 (host ")) << error.what();
      EXPECT_TRUE(contains(error.what(), ") has 2.30.7; load the same")) << error.what();
      ++refused;
    }
  });
  EXPECT_EQ(refused, 3);
}

// One rank computes on the CPU: its groups use the hosts, a group of GPUs alone uses NCCL.
TEST(NcclChoice, AGridWithARankOnTheCpu) {
  const Variable library("GLM_NCCL_LIBRARY", GLM_FAKE_NCCL_LIBRARY);
  run_thread_ranks(4, {}, [](Communicator& hosts) {
    EmulatedDevice gpu(hosts.rank());
    const auto cpu = make_cpu_device();
    const bool on_cpu = hosts.rank() == 3;
    DeviceLink link;
    link.device = on_cpu ? cpu.get() : &gpu;
    ProcessGrid grid(hosts, {1, 2, 2, 2}, link);
    EXPECT_TRUE(contains(grid.transport_text(), "host memory: rank 3 (host "));
    EXPECT_EQ(dynamic_cast<NcclCommunicator*>(&grid.tensor()) != nullptr, hosts.rank() < 2);
    EXPECT_EQ(dynamic_cast<NcclCommunicator*>(&grid.world()), nullptr);
    const Tensor x = filled(*link.device, 2, 1);
    grid.tensor().all_reduce_sum(x);
    EXPECT_EQ(first_of(*link.device, x), 2.0f);
    grid.world().all_reduce_sum(x);
    EXPECT_EQ(first_of(*link.device, x), 8.0f);
    EXPECT_EQ(grid.world().name(), "world");
  });
}

TEST(NcclVersion, NamesBoth) {
  {
    const Variable library("GLM_NCCL_LIBRARY", GLM_FAKE_NCCL_LIBRARY);
    EXPECT_TRUE(contains(nccl_version_text(), " at run time)"));
  }
  const Variable library("GLM_NCCL_LIBRARY", "/no/such/file");
  EXPECT_TRUE(contains(nccl_version_text(), " (at run time: NCCL cannot be loaded: /no/such/file"));
}

}  // namespace
}  // namespace glm
