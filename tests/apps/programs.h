// The programs as a user starts them: command lines, one error line, the test models.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "io/json.h"
#include "tests/io/temp_folder.h"
#include "tests/support/subprocess.h"

namespace glm::testing_support {

using Args = std::vector<std::string>;

std::string program(const std::string& name);
// `ranks` copies of glm_infer under mpirun; 0 starts it without mpirun.
Command infer(int ranks, Args args);
Command convert(Args args);
Command inspect(Args args);

// What follows "PROGRAM: error: " in the lines of stderr that begin with it.
std::vector<std::string> errors_of(const std::string& program, const Outcome& outcome);
// Ended by itself with this code, and said one line that contains every one of `texts`; nothing
// crashed, nothing was left behind. One process that refuses its input (codes 2 and 3) does so in
// a second and in 64 MiB more than it starts with.
void expect_error(const Command& command,
                  int code,
                  const std::vector<std::string>& texts,
                  const std::string& program = "glm_infer");
// Ended with 0, or the test fails and shows why.
Outcome expect_good(const Command& command);
// The last line of stdout.
Json last_json(const Outcome& outcome);

// A folder of tests/data, converted once per test process.
std::string model_file(const std::string& folder, const std::string& dtype);
std::string test_data(const std::string& path);
// A folder for this test process.
const TempFolder& scratch();

// glm4_moe configurations: GLM-4.5-Air (46 layers) and GLM-4.5 (92), and a small one.
std::string config_air();
std::string config_355b();
std::string config_9b();
std::string folder_with_config(const std::string& name, const std::string& config);

inline const std::string kFrance = "What is the capital of France?";
inline const std::string kParis = "\n<think></think>\nThe capital of France is Paris.\n";

}  // namespace glm::testing_support
