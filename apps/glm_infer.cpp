// glm_infer: one MPI job that runs a model. Parses, settles the job on all ranks, and does what was
// asked. SPDX-License-Identifier: MIT
#include "apps/infer_run.h"
#include "apps/launch.h"

namespace glm {
namespace {

int run(MpiSession& session, const InferOptions& options) {
  const Job job = prepare_job(session, options);
  StepContext& where = session.context();
  if (options.dry_run) return run_dry(session, job);
  bind_process(job.cores);
  if (options.batch) return run_batch(session, job, where);
  return options.benchmark ? run_benchmark(session, job, where) : run_answer(session, job, where);
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  const glm::ParsedCommand command = glm::parse_infer_command(argc, argv);
  const auto run = [&](glm::MpiSession& session) { return glm::run(session, command.options); };
  return glm::run_ranks(argc, argv, "glm_infer", command, command.options.timeout, run);
}
