// The whole program on emulated GPUs that talk over a library that stands in for NCCL: answers on
// grids, and how a job ends when a message never arrives. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

Command infer_over_nccl(int ranks, const Args& more, const std::string& fault = "") {
  Args args = {"--model", model_file("tiny", "q40"), "--prompt", kFrance, "--temperature", "0"};
  args.insert(args.end(), {"--device", "cuda", "--nccl", "on"});
  args.insert(args.end(), more.begin(), more.end());
  Command command = infer(ranks, args);
  for (std::string& word : command.argv)
    if (word == program("glm_infer")) word = GLM_INFER_EMULATED;
  command.env.emplace_back("GLM_EMULATED_GPUS", std::to_string(ranks));
  command.env.emplace_back("GLM_NCCL_LIBRARY", GLM_FAKE_NCCL_LIBRARY);
  command.env.emplace_back("GLM_FAKE_NCCL", fault);
  return command;
}

TEST(NcclJobs, AnswerRightOnGrids) {
  for (const Args& grid : {Args{"--tensor", "4"},
                           Args{"--pipeline", "2", "--tensor", "2"},
                           Args{"--data", "2", "--tensor", "2"}})
    EXPECT_EQ(expect_good(infer_over_nccl(4, grid)).out, kParis) << grid[0];
}

TEST(NcclJobs, AMessageThatNeverArrivesEndsAtTheDeadline) {
  expect_error(infer_over_nccl(2, {"--tensor", "2", "--timeout", "2"}, "stall=30"),
               5,
               {"(emulated): work not done after 2 s", "of group tensor", "(NCCL)"});
}

TEST(NcclJobs, AnErrorOfTheLibraryEndsTheJob) {
  expect_error(infer_over_nccl(2, {"--tensor", "2"}, "error=30"),
               5,
               {"NCCL: remote process exited or there was a network error", "of group tensor"});
}

TEST(NcclJobs, ALibraryThatIsMissingIsAnErrorWhereItIsDemanded) {
  Command command = infer_over_nccl(2, {"--tensor", "2"});
  for (auto& [name, value] : command.env)
    if (name == "GLM_NCCL_LIBRARY") value = "/no/such/libnccl.so.2";
  expect_error(
      command, 2, {"NCCL cannot serve group", "NCCL cannot be loaded", "GLM_NCCL_LIBRARY"});
}

}  // namespace
}  // namespace glm::testing_support
