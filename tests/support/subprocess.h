// Runs programs for tests: an argument vector (no shell), changes to the environment, stdin,
// limits, and a deadline after which everything that was started is killed.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace glm::testing_support {

struct Command {
  std::vector<std::string> argv;
  // Name and new value; no value takes the variable away.
  std::vector<std::pair<std::string, std::optional<std::string>>> env;
  std::string input;       // what stdin holds
  double input_pause = 0;  // seconds after which `late_input` follows, when there is some
  std::string late_input;
  bool close_stdin = false;  // the program starts without one
  bool close_stdout = false;
  std::string stdout_path;    // stdout goes there instead of being captured
  std::string folder;         // working directory
  int64_t address_space = 0;  // RLIMIT_AS in bytes; 0: none
  int64_t file_size = 0;      // RLIMIT_FSIZE in bytes; 0: none
  double timeout = 60;        // seconds
};

struct Outcome {
  int code = -1;   // exit code, -1 when a signal ended it
  int signal = 0;  // which one
  bool timed_out = false;
  double seconds = 0;
  // Of the program and what it waited for: seconds on cores, and the largest resident set.
  double cpu_seconds = 0;
  int64_t peak_bytes = 0;
  std::string out, err;
};

// A running program. Its descendants carry a mark in their environment, so that those which a
// launcher put into process groups of their own are found as well.
class Process {
 public:
  explicit Process(const Command& command);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Collects output until the program ends, or for `seconds`. True when it has ended.
  bool wait_for(double seconds);
  // Waits for the end; kills everything when the command's timeout has passed.
  Outcome finish();
  const std::string& err() const;

  // Living processes of this run, the program itself included; zombies do not live.
  std::vector<pid_t> pids() const;
  // The process that mpirun started as this rank; 0 when there is none (yet).
  pid_t rank_pid(int rank) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Starts and finishes. Nothing of the run may be left half a second later: the rest is killed and
// counts as timed out.
Outcome run(const Command& command);

// Lines of `text`, without their ends.
std::vector<std::string> lines_of(const std::string& text);

}  // namespace glm::testing_support
