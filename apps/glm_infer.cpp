// glm_infer: one MPI job that runs a model. Parses, settles the job on all ranks, and does what was
// asked. SPDX-License-Identifier: MIT
#include <cstdlib>
#include <string>

#include "apps/infer_run.h"
#include "apps/program.h"
#include "core/base/fault.h"
#include "core/base/rng.h"
#include "parallel/mpi_launch.h"

namespace glm {
namespace {

constexpr const char* kProgram = "glm_infer";

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

int answer(MpiSession& session, const Job& job, StepContext& where) {
  if (job.options.batch) return run_batch(session, job, where);
  return job.options.benchmark ? run_benchmark(session, job, where)
                               : run_answer(session, job, where);
}

int run(MpiSession& session, const ParsedCommand& command, int argc, char** argv) {
  const bool valid = command.kind == ParsedCommand::Kind::kRun;
  StepContext& where = session.context();
  session.configure(
      {.timeout_seconds = (valid ? command.options : InferOptions()).timeout, .context = &where});
  fault_point({"init", session.world().rank()});
  compare_options(session, argc, argv);
  if (!valid) {
    session.on_root([&] {
      if (command.kind == ParsedCommand::Kind::kError) throw Error(ExitCode::kUsage, command.text);
      write_out(command.text + "\n");
    });
    return 0;
  }
  const Job job = prepare_job(session, command.options);
  if (job.options.dry_run) return run_dry(session, job);
  bind_process(job.cores);
  const int code = answer(session, job, where);
  fault_point({"finalize", session.world().rank()});
  return code;
}

// A process of its own needs no MPI to explain itself. Of the tasks of a Slurm step that know
// nothing of each other the first one speaks.
int explain(const ParsedCommand& command) {
  const char* task = std::getenv("SLURM_PROCID");
  const bool speaks = task == nullptr || std::string(task) == "0";
  const bool is_error = command.kind == ParsedCommand::Kind::kError;
  if (!speaks) return is_error ? static_cast<int>(ExitCode::kUsage) : 0;
  return run_program(kProgram, [&] {
    if (is_error) throw Error(ExitCode::kUsage, command.text);
    write_out(command.text + "\n");
    return 0;
  });
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  const glm::ParsedCommand command = glm::parse_infer_command(argc, argv);
  if (command.kind != glm::ParsedCommand::Kind::kRun && glm::started_alone())
    return glm::explain(command);
  return glm::run_mpi_program(argc, argv, glm::kProgram, [&](glm::MpiSession& session) {
    return glm::run(session, command, argc, argv);
  });
}
