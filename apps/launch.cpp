// SPDX-License-Identifier: MIT
#include "apps/launch.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "apps/program.h"
#include "core/base/fault.h"
#include "core/base/rng.h"
#include "parallel/mpi_launch.h"

namespace glm {
namespace {

// `mpirun -np 2 A : -np 2 B` can start ranks with different words, which would then wait for each
// other in different places.
void compare_options(MpiSession& session, int argc, char** argv) {
  std::string words;
  for (int i = 1; i < argc; ++i) words.append(argv[i]).push_back('\0');
  const std::vector<std::string> keys =
      all_gather_strings(session.world(), std::to_string(stream_key(0, words)));
  session.on_root([&] {
    for (size_t r = 1; r < keys.size(); ++r)
      if (keys[r] != keys[0])
        fail(ExitCode::kUsage,
             "rank {} was started with other options than rank 0; all ranks need the same ones",
             r);
  });
}

// A process of its own needs no MPI to explain itself. Of the tasks of a Slurm step that know
// nothing of each other the first one speaks.
int explain(const std::string& program, const Launch& launch) {
  const char* task = std::getenv("SLURM_PROCID");
  const bool speaks = task == nullptr || std::string(task) == "0";
  const bool is_error = launch.kind == Launch::Kind::kError;
  if (!speaks) return is_error ? static_cast<int>(ExitCode::kUsage) : 0;
  return run_program(program, [&] {
    if (is_error) throw Error(ExitCode::kUsage, launch.text);
    write_out(launch.text + "\n");
    return 0;
  });
}

}  // namespace

int run_ranks(int argc,
              char** argv,
              const std::string& program,
              const Launch& launch,
              double timeout,
              const std::function<int(MpiSession&)>& body) {
  if (launch.kind != Launch::Kind::kRun && started_alone()) return explain(program, launch);
  const auto start = [&](MpiSession& session) {
    session.configure({.timeout_seconds = timeout, .context = &session.context()});
    fault_point({"init", session.world().rank()});
    compare_options(session, argc, argv);
    if (launch.kind != Launch::Kind::kRun) {
      session.on_root([&] {
        if (launch.kind == Launch::Kind::kError) throw Error(ExitCode::kUsage, launch.text);
        write_out(launch.text + "\n");
      });
      return 0;
    }
    const int code = body(session);
    fault_point({"finalize", session.world().rank()});
    return code;
  };
  return run_mpi_program(argc, argv, program, start, launch.stops_on_request, timeout);
}

void write_out(const std::string& text) {
  const bool good =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!good) fail(ExitCode::kRuntime, "the output could not be written to stdout");
}

}  // namespace glm
