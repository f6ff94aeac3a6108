// How every program of ranks starts: what the command line asks for is the same on all ranks, and
// help and errors of it are said once. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>

#include "parallel/mpi_session.h"

namespace glm {

// What a command line asks for.
struct Launch {
  enum class Kind { kRun, kText, kError } kind = Kind::kRun;
  std::string text;               // of --help or --version, or of the error
  bool stops_on_request = false;  // MpiSession's
};

// The main of a program: opens the session with --timeout and runs `body` in it, unless there is
// only something to say.
int run_ranks(int argc,
              char** argv,
              const std::string& program,
              const Launch& launch,
              double timeout,
              const std::function<int(MpiSession&)>& body);

// Throws Error(kRuntime) when stdout cannot take it.
void write_out(const std::string& text);

}  // namespace glm
