// What the doctor says to facts of ranks: pure functions. SPDX-License-Identifier: MIT
#include "apps/doctor_judge.h"

#include <gtest/gtest.h>

#include "apps/doctor_self_test.h"

namespace glm {
namespace {

// Ranks that nothing is wrong with: `per_host` on each host, two cores and threads for each.
std::vector<RankFacts> healthy(int count, int per_host) {
  std::vector<RankFacts> ranks;
  for (int r = 0; r < count; ++r) {
    RankFacts rank;
    rank.rank = r;
    rank.host = "n" + std::to_string(r / per_host + 1);
    rank.node_rank = r % per_host;
    rank.node_size = per_host;
    rank.versions = {{"program", "1.0"}, {"program file", "12 bytes"}, {"compiler", "GNU"}};
    rank.versions.insert({{"MPI", "Open MPI"}, {"HDF5", "1.10"}, {"CUDA", "12"}, {"NCCL", "2.2"}});
    rank.simd = "avx2";
    rank.input = "a pipe";
    rank.environment = {{"OMPI_COMM_WORLD_SIZE", std::to_string(count)},
                        {"OMPI_MCA_oob_tcp_keepalive_time", "5"}};
    rank.cores = {2 * rank.node_rank, 2 * rank.node_rank + 1};
    rank.given = rank.cores;
    for (int core = 0; core < 2 * per_host; ++core) rank.host_cores.push_back(core);
    rank.threads = 2;
    rank.shared_memory = rank.shared_memory_free = int64_t{8} << 30;
    rank.memory = rank.memory_available = int64_t{64} << 30;
    rank.device = "cpu";
    ranks.push_back(rank);
  }
  return ranks;
}

Findings judge_all(const std::vector<RankFacts>& ranks) {
  Findings all;
  for (const auto& judge : {judge_launch, judge_versions, judge_cores, judge_limits, judge_gpus})
    for (const Finding& finding : judge(ranks)) all.push_back(finding);
  return all;
}

// The one finding that is not well; it says all of `texts`.
Finding expect_one(const std::vector<RankFacts>& ranks,
                   FindingKind verdict,
                   const std::vector<std::string>& texts) {
  Findings bad;
  for (const Finding& finding : judge_all(ranks))
    if (finding.verdict == FindingKind::kWarning || finding.verdict == FindingKind::kFailure)
      bad.push_back(finding);
  if (bad.size() != 1) {
    ADD_FAILURE() << bad.size() << " findings";
    for (const Finding& finding : bad) ADD_FAILURE() << finding.section << ": " << finding.text;
    return {};
  }
  EXPECT_EQ(bad[0].verdict, verdict) << bad[0].text;
  EXPECT_FALSE(bad[0].advice.empty()) << bad[0].text;
  for (const std::string& text : texts)
    EXPECT_NE(bad[0].text.find(text), std::string::npos) << text << " in " << bad[0].text;
  return bad[0];
}

TEST(DoctorJudge, FindsNothingWhereAllIsWell) {
  for (const auto& [count, per_host] : {std::pair(1, 1), std::pair(4, 4), std::pair(6, 2)})
    for (const Finding& finding : judge_all(healthy(count, per_host)))
      EXPECT_TRUE(finding.verdict == FindingKind::kOk || finding.verdict == FindingKind::kNote)
          << finding.text;
  EXPECT_EQ(code_of(judge_all(healthy(4, 2))), ExitCode::kOk);
}

TEST(DoctorJudge, NamesTheRankWithAnotherVersion) {
  for (const char* what : {"program", "program file", "MPI", "NCCL"}) {
    auto ranks = healthy(6, 2);
    ranks[4].versions[what] = "other";
    const Finding found =
        expect_one(ranks, FindingKind::kFailure, {what, "rank 4 on host n3", "other"});
    EXPECT_EQ(found.code, ExitCode::kUsage);
  }
  auto ranks = healthy(6, 2);
  ranks[0].versions["CUDA"] = "11";
  expect_one(ranks, FindingKind::kWarning, {"CUDA", "rank 0 on host n1", "11", "12"});
}

TEST(DoctorJudge, SlowerInstructionsAreAWarningUnknownOnesAFailure) {
  auto ranks = healthy(4, 2);
  ranks[3].simd = "scalar";
  expect_one(ranks, FindingKind::kWarning, {"rank 3 on host n2", "scalar"});
  ranks[3].simd = "GLM_SIMD=sse is not one of them";
  EXPECT_EQ(expect_one(ranks, FindingKind::kFailure, {"rank 3 on host n2", "sse"}).code,
            ExitCode::kUsage);
}

TEST(DoctorJudge, LaunchersThatCountOtherwise) {
  auto ranks = healthy(1, 1);
  ranks[0].environment = {{"PMI_SIZE", "4"}};
  EXPECT_EQ(expect_one(ranks, FindingKind::kFailure, {"PMI_SIZE=4", "1 rank"}).code,
            ExitCode::kUsage);
  ranks = healthy(2, 2);
  for (RankFacts& rank : ranks)
    rank.environment = {{"SLURM_STEP_NUM_TASKS", "3"}, {"PMIX_RANK", "0"}};
  expect_one(ranks, FindingKind::kFailure, {"SLURM_STEP_NUM_TASKS=3", "2 ranks"});
  // Under mpirun the step is that of its daemons.
  ranks = healthy(2, 2);
  for (RankFacts& rank : ranks) rank.environment["SLURM_STEP_NUM_TASKS"] = "1";
  EXPECT_EQ(code_of(judge_all(ranks)), ExitCode::kOk);
  for (RankFacts& rank : ranks) rank.environment["SLURM_NTASKS"] = "8";
  expect_one(ranks, FindingKind::kWarning, {"8 tasks", "2"});
}

TEST(DoctorJudge, HostsOfOneNameAndHostsWithoutAddress) {
  auto ranks = healthy(4, 2);
  for (RankFacts& rank : ranks) rank.host = "localhost";
  const Findings found = judge_launch(ranks);
  EXPECT_EQ(code_of(found), ExitCode::kUsage);
  EXPECT_NE(found.back().text.find("called localhost: 4 ranks"), std::string::npos);
  ranks = healthy(4, 2);
  ranks[2].unresolved = {{"n1", "Name or service not known"}};
  expect_one(ranks, FindingKind::kWarning, {"n1: Name or service not known", "seen from n2"});
  ranks = healthy(4, 2);
  for (RankFacts& rank : ranks) rank.environment.erase("OMPI_MCA_oob_tcp_keepalive_time");
  expect_one(ranks, FindingKind::kWarning, {"lost host"});
}

TEST(DoctorJudge, MoreRanksThanCores) {
  auto ranks = healthy(4, 4);
  for (RankFacts& rank : ranks) {
    rank.host_cores = {0, 1};
    rank.cores = {rank.rank % 2};
    rank.threads = 1;
  }
  EXPECT_NE(expect_one(ranks, FindingKind::kWarning, {"n1 has 4 ranks on 2 cores", "keep"})
                .advice.find("yield"),
            std::string::npos);
  for (RankFacts& rank : ranks) rank.environment["OMPI_MCA_mpi_yield_when_idle"] = "1";
  const Finding found = expect_one(ranks, FindingKind::kWarning, {"n1 has 4 ranks on 2 cores"});
  EXPECT_EQ(found.text.find("keep"), std::string::npos);
}

TEST(DoctorJudge, ThreadsAndCoresThatDoNotFit) {
  auto ranks = healthy(4, 2);
  for (RankFacts& rank : ranks) rank.threads = rank.host == "n2" ? 16 : 2;
  const Finding found =
      expect_one(ranks, FindingKind::kWarning, {"n2", "32 threads", "2 to 3", "4 co"});
  EXPECT_NE(found.advice.find("at most 2"), std::string::npos) << found.advice;
  ranks = healthy(4, 2);
  ranks[1].threads = 3;
  ranks[0].threads = 1;
  expect_one(ranks, FindingKind::kWarning, {"rank 1 on host n1 has 3 threads on 2 cores"});
  ranks = healthy(4, 2);
  ranks[3].cores = {1, 2};
  expect_one(ranks, FindingKind::kWarning, {"ranks 2 and 3 on host n2", "core 1"});
  ranks = healthy(2, 2);
  ranks[0].cpu_quota = 1.5;
  expect_one(ranks, FindingKind::kWarning, {"n1", "1.5 cores", "4 threads"});
}

TEST(DoctorJudge, LimitsOfTheProcessAndOfTheHost) {
  auto ranks = healthy(4, 2);
  ranks[2].shared_memory_free = 1000;
  expect_one(ranks, FindingKind::kWarning, {"/dev/shm of host n2"});
  ranks = healthy(4, 2);
  ranks[0].open_files = 64;
  expect_one(ranks, FindingKind::kWarning, {"rank 0 on host n1", "64 files"});
  // Locked memory matters to network cards and GPUs.
  ranks = healthy(4, 2);
  ranks[0].locked_memory = 65536;
  EXPECT_EQ(code_of(judge_all(ranks)), ExitCode::kOk);
  ranks[0].infiniband = true;
  expect_one(ranks, FindingKind::kWarning, {"rank 0 on host n1", "lock"});
}

TEST(DoctorJudge, GpusThatAreSharedMissingOrUnseen) {
  auto ranks = healthy(4, 2);
  for (RankFacts& rank : ranks) {
    rank.gpus = {{"0000:01", "GPU-" + rank.host + "-a"}, {"0000:02", "GPU-" + rank.host + "-b"}};
    rank.device = "cuda:0 (A100)";
    rank.device_id = rank.gpus[static_cast<size_t>(rank.node_rank)].id;
  }
  EXPECT_EQ(code_of(judge_gpus(ranks)), ExitCode::kOk);
  EXPECT_NE(judge_gpus(ranks)[3].text.find("GPU-n2-b"), std::string::npos);
  ranks[3].device_id = "0000:01";
  expect_one(ranks, FindingKind::kWarning, {"ranks 2, 3 share GPU-n2-a of host n2"});
  ranks[3].device = "cpu";
  ranks[3].device_id = "";
  expect_one(ranks, FindingKind::kWarning, {"1 of 4 ranks", "rank 3 on host n2"});
  ranks = healthy(4, 2);
  ranks[1].gpu_error = "CUDA: unknown error";
  for (RankFacts& rank : ranks) rank.device = "";
  EXPECT_EQ(expect_one(ranks, FindingKind::kFailure, {"rank 1 on host n1", "unknown error"}).code,
            ExitCode::kResources);
}

TEST(DoctorJudge, AddressSpaceBelowThePlan) {
  auto ranks = healthy(2, 2);
  EXPECT_TRUE(judge_address_space(ranks, {1000, 1000}).empty());
  ranks[1].address_space = 5000;
  ranks[1].used_address_space = 4500;
  const Findings found = judge_address_space(ranks, {1000, 1000});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].code, ExitCode::kResources);
  EXPECT_NE(found[0].text.find("rank 1 on host n1"), std::string::npos);
  EXPECT_TRUE(judge_address_space(ranks, {1000, 500}).empty());
}

TEST(DoctorJudge, TheFirstFailureGivesTheCode) {
  EXPECT_EQ(code_of({{FindingKind::kWarning, "a", "", "", ExitCode::kOk},
                     {FindingKind::kFailure, "b", "", "", ExitCode::kModelFile},
                     {FindingKind::kFailure, "c", "", "", ExitCode::kUsage}}),
            ExitCode::kModelFile);
}

TEST(DoctorJudge, FactsTravelWhole) {
  RankFacts facts = healthy(4, 2)[3];
  facts.gpus = {{"a", "b"}, {"c", "d"}};
  facts.unresolved = {{"n1", "why"}};
  facts.cpu_quota = 1.25;
  facts.physical_cores = 1;
  const Json json = to_json(facts);
  EXPECT_EQ(to_json(facts_from_json(Json::parse(json.dump()))), json);
}

// Far below any wrong result, far above what rounding does to the test's model.
TEST(DoctorSelfTest, TheAllowedDeviationGrowsWithRanks) {
  EXPECT_LT(allowed_deviation(2, 4), 1e-4);
  EXPECT_GT(allowed_deviation(2, 4), 1e-6);
  EXPECT_DOUBLE_EQ(allowed_deviation(8, 4), 4 * allowed_deviation(2, 4));
  EXPECT_LT(allowed_deviation(64, 4), 1e-2);
}

}  // namespace
}  // namespace glm
