// --help and --version of every program. SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

const Args kPrograms = {"glm_infer", "glm_convert", "glm_inspect"};

Outcome ask(const std::string& name, const std::string& option) {
  Command command;
  command.argv = {program(name), option};
  return expect_good(command);
}

void expect_texts(const std::string& text, const std::vector<std::string>& wanted) {
  for (const std::string& part : wanted)
    EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in\n" << text;
}

TEST(Help, EveryProgramExplainsItself) {
  for (const std::string& name : kPrograms) {
    const Outcome outcome = ask(name, "--help");
    expect_texts(outcome.out, {"Usage: " + name, "--help", "--version"});
    EXPECT_EQ(outcome.err, "");
  }
}

TEST(Help, GlmInferShowsGroupsAndDefaults) {
  expect_texts(ask("glm_infer", "--help").out,
               {"Prompt:",
                "Generation (defaults: the model's generation_config.json):",
                "Ranks and machine:",
                "Reports:",
                "--timeout S=300",
                "--seed N=0",
                "--repeat N=5",
                "Models without a file:",
                "--synthetic CONFIG.json",
                "--synthetic-seed N=0",
                "(default: 1024 or what the context leaves)",
                "at most 8192",
                "(default: its share of the cores)"});
}

TEST(Help, GlmConvertShowsGroupsAndDefaults) {
  expect_texts(ask("glm_convert", "--help").out,
               {"Weights:", "Resources:", "TEXT=q40", "TEXT=1GiB", "--synthetic"});
}

TEST(Help, VersionNamesWhatTheProgramIsMadeOf) {
  for (const std::string& name : kPrograms) {
    const Outcome outcome = ask(name, "--version");
    EXPECT_TRUE(outcome.out.starts_with(name + " ")) << outcome.out;
    expect_texts(
        outcome.out,
        {"commit ", "\ncompiler: ", "\nHDF5: 1.", "\nMPI: Open MPI ", "\nCUDA: ", "\nNCCL: "});
    EXPECT_EQ(outcome.err, "");
  }
}

}  // namespace
}  // namespace glm::testing_support
