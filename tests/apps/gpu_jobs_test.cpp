// The whole program on GPUs that are none (tests/support/emulated_cuda.cpp): jobs of GPU ranks, of
// both kinds, and what is refused. SPDX-License-Identifier: MIT
#include "apps/infer_device.h"
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

// `ranks` copies of glm_infer on a host with so many emulated GPUs, which NCCL does not know.
Command infer_on_gpus(int n_gpus, int ranks, Args args) {
  args.insert(args.end(), {"--nccl", "off"});
  Command command = infer(ranks, std::move(args));
  for (std::string& word : command.argv)
    if (word == program("glm_infer")) word = GLM_INFER_EMULATED;
  command.env.emplace_back("GLM_EMULATED_GPUS", std::to_string(n_gpus));
  return command;
}

Args question(const std::string& dtype, const Args& more = {}) {
  Args args = {"--model", model_file("tiny", dtype), "--prompt", kFrance, "--temperature", "0"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::vector<std::string> devices(const Json& json) {
  std::vector<std::string> out;
  for (const Json& rank : json["ranks"]) out.push_back(rank["device"].get<std::string>());
  return out;
}

TEST(GpuJobs, AnswerRightOnAnyNumberOfGpus) {
  EXPECT_EQ(expect_good(infer_on_gpus(1, 0, question("q40"))).out, kParis);
  EXPECT_EQ(expect_good(infer_on_gpus(2, 2, question("q40"))).out, kParis);
  EXPECT_EQ(expect_good(infer_on_gpus(4, 4, question("q80", {"--device", "cuda"}))).out, kParis);
}

TEST(GpuJobs, RanksWithoutAGpuComputeOnTheCpu) {
  const Outcome outcome = expect_good(infer_on_gpus(1, 2, question("q40", {"--json"})));
  const Json json = last_json(outcome);
  EXPECT_EQ(json["text"], kParis.substr(0, kParis.size() - 1));
  EXPECT_EQ(devices(json), (std::vector<std::string>{"cuda:0 (emulated)", "cpu"}));
  const Json other = last_json(
      expect_good(infer_on_gpus(1, 3, question("q40", {"--json", "--device", "cpu,cuda,cpu"}))));
  EXPECT_EQ(devices(other), (std::vector<std::string>{"cpu", "cuda:0 (emulated)", "cpu"}));
}

TEST(GpuJobs, SyntheticModelsAreThoseOfTheCpu) {
  const Args args = {"--synthetic",
                     test_data("golden/glm4_moe_air/config.json"),
                     "--tokens",
                     "1,2,3",
                     "--max-tokens",
                     "8",
                     "--temperature",
                     "0",
                     "--reproducible"};
  const std::string expected = expect_good(infer(0, args)).out;
  EXPECT_EQ(expect_good(infer_on_gpus(1, 0, args)).out, expected);
  EXPECT_EQ(expect_good(infer_on_gpus(2, 2, args)).out, expected);
}

// Sampling at temperature 1 goes another way at the first other bit that matters.
TEST(GpuJobs, ReproducibleTextsAreThoseOfTheCpu) {
  const Args args = {"--model",
                     model_file("tiny", "q40"),
                     "--prompt",
                     "The sea",
                     "--raw",
                     "--temperature",
                     "1",
                     "--top-p",
                     "1",
                     "--max-tokens",
                     "40",
                     "--seed",
                     "7",
                     "--reproducible"};
  const std::string text = expect_good(infer(0, args)).out;
  EXPECT_GT(text.size(), 20u);
  for (const auto& [gpus, ranks] : {std::pair{1, 0}, std::pair{4, 4}, std::pair{1, 3}})
    EXPECT_EQ(expect_good(infer_on_gpus(gpus, ranks, args)).out, text) << gpus << " of " << ranks;
}

int times(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(GpuJobs, SayOnceThatThereIsNoCublas) {
  const Outcome without = expect_good(infer_on_gpus(2, 2, question("bf16")));
  EXPECT_EQ(without.out, kParis);
  EXPECT_EQ(times(without.err, "without cuBLAS"), 1) << without.err;
  const Outcome quantized = expect_good(infer_on_gpus(1, 0, question("q40")));
  EXPECT_EQ(times(quantized.err, "cuBLAS"), 0) << quantized.err;
  const Outcome serial = expect_good(infer_on_gpus(1, 0, question("bf16", {"--reproducible"})));
  EXPECT_EQ(times(serial.err, "cuBLAS"), 0) << serial.err;
}

TEST(GpuJobs, TakeCublasWhereItIs) {
#if defined(GLM_FAKE_CUBLAS_LIBRARY)
  Command command = infer_on_gpus(1, 0, question("bf16", {"--json"}));
  command.env.emplace_back("GLM_CUBLAS_LIBRARY", GLM_FAKE_CUBLAS_LIBRARY);
  const Outcome outcome = expect_good(command);
  const Json json = last_json(outcome);
  EXPECT_EQ(json["ops"], "cuda emulated, cuBLAS 99.1.2");
  EXPECT_EQ(json["text"], kParis.substr(0, kParis.size() - 1));
  EXPECT_EQ(times(outcome.err, "without"), 0) << outcome.err;
#else
  GTEST_SKIP() << "built without the header of cuBLAS";
#endif
}

TEST(GpuJobs, OneGpuForTwoRanksMustBeAskedFor) {
  expect_error(infer_on_gpus(1, 2, question("q40", {"--device", "cuda"})),
               2,
               {"--device cuda", "rank 1", "--allow-shared-gpu"});
  EXPECT_EQ(
      expect_good(infer_on_gpus(1, 2, question("q40", {"--device", "cuda", "--allow-shared-gpu"})))
          .out,
      kParis);
}

TEST(GpuJobs, AGpuThatIsNotThereIsAnError) {
  expect_error(infer_on_gpus(0, 0, question("q40", {"--device", "cuda"})),
               4,
               {"--device cuda", "rank 0", "sees no GPU"});
  EXPECT_EQ(expect_good(infer_on_gpus(0, 0, question("q40"))).out, kParis);
}

TEST(GpuJobs, APlanBeyondTheGpusMemoryIsRefusedWithWhatWouldFit) {
  Command command = infer_on_gpus(2, 2, question("f32", {"--context", "1024"}));
  command.env.emplace_back("GLM_EMULATED_GPU_BYTES", "16000000");
  expect_error(command, 4, {"GPU emulated 0", "these would fit: --context"});
}

TEST(GpuJobs, ABenchmarkStandsBesideCopies) {
  Command command = infer_on_gpus(2,
                                  2,
                                  {"--model",
                                   model_file("tiny", "q40"),
                                   "--benchmark",
                                   "--prompt-tokens",
                                   "8",
                                   "--max-tokens",
                                   "4",
                                   "--repeat",
                                   "1",
                                   "--json"});
  command.env.emplace_back("GLM_EMULATED_GPU_BYTES", "40000000");
  const Json json = last_json(expect_good(command))["benchmark"];
  EXPECT_EQ(json["roofs_before"]["of"], "copies on GPUs");
  EXPECT_GT(json["read_bandwidth_bytes_per_second"].get<double>(), 0);
  EXPECT_GT(json["bandwidth_share"].get<double>(), 0);
}

TEST(AssignGpus, GivesEachRankItsOwn) {
  using enum DeviceChoice;
  const std::vector<std::string> two = {"a", "b"};
  // All see all, restricted visibility (--gpus-per-task), fewer GPUs than ranks, two hosts.
  EXPECT_EQ(assign_gpus({{"n1", kAuto, two}, {"n1", kAuto, two}}, false), (std::vector<int>{0, 1}));
  EXPECT_EQ(assign_gpus({{"n1", kAuto, {"a"}}, {"n1", kAuto, {"b"}}}, false),
            (std::vector<int>{0, 0}));
  EXPECT_EQ(
      assign_gpus({{"n1", kAuto, two}, {"n1", kCpu, two}, {"n1", kAuto, two}, {"n1", kAuto, two}},
                  false),
      (std::vector<int>{0, -1, 1, -1}));
  EXPECT_EQ(assign_gpus({{"n1", kAuto, {"a"}}, {"n2", kAuto, {"a"}}}, false),
            (std::vector<int>{0, 0}));
  EXPECT_EQ(assign_gpus({{"n1", kAuto, two}, {"n1", kAuto, two}, {"n1", kAuto, two}}, true),
            (std::vector<int>{0, 1, 0}));
  EXPECT_THROW(assign_gpus({{"n1", kCuda, {"a"}}, {"n1", kCuda, {"a"}}}, false), Error);
  EXPECT_THROW(assign_gpus({{"n1", kCuda, {}}}, true), Error);
}

}  // namespace
}  // namespace glm::testing_support
