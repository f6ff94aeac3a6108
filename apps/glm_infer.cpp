// glm_infer: one MPI job that runs a model. Parses, settles the job on all ranks, and does what was
// asked. SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "apps/infer_run.h"

namespace glm {
namespace {

int run(MpiSession& session, const ParsedCommand& command) {
  session.on_root([&] {
    if (command.kind == ParsedCommand::Kind::kError) throw Error(ExitCode::kUsage, command.text);
  });
  StepContext where;
  session.configure({.timeout_seconds = command.options.timeout, .context = &where});
  const Job job = prepare_job(session, command.options);
  if (job.options.dry_run) return run_dry(session, job);
  bind_process(job.cores);
  return job.options.benchmark ? run_benchmark(session, job, where)
                               : run_answer(session, job, where);
}

// Before MPI starts only the launcher's environment says which rank this is.
bool first_of_launch() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(name)) return std::string_view(rank) == "0";
  return true;
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  const glm::ParsedCommand command = glm::parse_infer_command(argc, argv);
  if (command.kind == glm::ParsedCommand::Kind::kText) {
    if (glm::first_of_launch()) std::fputs(command.text.c_str(), stdout);
    return 0;
  }
  return glm::run_mpi_program(argc, argv, "glm_infer", [&](glm::MpiSession& session) {
    return glm::run(session, command);
  });
}
