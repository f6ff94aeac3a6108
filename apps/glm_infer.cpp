// glm_infer: one MPI job that runs a model. Parses, settles the job on all ranks, and does what was
// asked. SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <unistd.h>

#include "apps/doctor.h"
#include "apps/infer_run.h"
#include "apps/launch.h"

namespace glm {
namespace {

int run(MpiSession& session, const InferOptions& options) {
  if (options.doctor) return run_doctor(session, options);
  const Job job = prepare_job(session, options);
  StepContext& where = session.context();
  if (options.dry_run) return run_dry(session, job);
  check_record(session, job);
  bind_process(job.cores);
  if (options.batch) return run_batch(session, job, where);
  if (options.chat) return run_chat(session, job, where);
  return options.benchmark ? run_benchmark(session, job, where) : run_answer(session, job, where);
}

// A chat reads descriptor 0. Where it is closed, no file or socket may take its place.
void occupy_stdin() {
  if (::fcntl(STDIN_FILENO, F_GETFD) >= 0) return;
  const int fd = ::open("/dev/null", O_RDONLY);
  if (fd > STDIN_FILENO) ::close(fd);
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  glm::occupy_stdin();
  const glm::ParsedCommand command = glm::parse_infer_command(argc, argv);
  const auto run = [&](glm::MpiSession& session) { return glm::run(session, command.options); };
  return glm::run_ranks(argc, argv, "glm_infer", command, command.options.timeout, run);
}
