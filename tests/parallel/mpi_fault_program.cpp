// A program whose ranks fail in a chosen way: mpi_fault_program MODE RANK TIMEOUT
// (tests/parallel/mpi_failure_test.cpp runs it). SPDX-License-Identifier: MIT
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "parallel/mpi_session.h"

namespace {

using glm::Communicator;
using glm::MpiSession;

void reduce(Communicator& group) {
  float x = 1;
  group.all_reduce_sum(glm::host_tensor(&x, glm::DType::kF32, {1}));
}

void fail_as_asked(MpiSession& session, const std::string& mode, bool chosen, int rank) {
  Communicator& world = session.world();
  const auto tensor = world.split(0, world.rank(), "tensor");
  world.barrier();
  if (mode == "stop" && chosen) raise(SIGSTOP);
  if (mode == "kill" && chosen) raise(SIGKILL);
  if (mode == "root") session.on_root([] { glm::fail(glm::ExitCode::kUsage, "--tokens: a\nb"); });
  if (mode == "all") glm::fail(glm::ExitCode::kModelFile, "the file is broken");
  if (mode == "one" && chosen) glm::fail(glm::ExitCode::kNumerical, "not a number");
  if (mode == "alloc" && chosen) throw std::bad_alloc();
  if (mode == "other" && chosen) throw std::runtime_error("something else");
  float x = 1;
  // The rank asked for waits for a message that its right neighbour never sends.
  if (mode == "receive" && chosen)
    world.recv(glm::host_tensor(&x, glm::DType::kF32, {1}), (rank + 1) % world.size());
  // The others compute and wait for nobody.
  if (mode == "stop-unseen") {
    if (chosen) raise(SIGSTOP);
    std::this_thread::sleep_for(std::chrono::seconds(30));
  }
  for (int i = 0; i < 100; ++i) reduce(*tensor);
  if (mode == "stop-at-end" && chosen) raise(SIGSTOP);
}

}  // namespace

int main(int argc, char** argv) {
  return glm::run_mpi_program(argc, argv, "glm_fault", [&](MpiSession& session) {
    const std::string mode = argc > 1 ? argv[1] : "";
    const int rank = argc > 2 ? std::atoi(argv[2]) : 0;
    const glm::StepContext where{"decode", 12, 17, "attention"};
    glm::CommOptions options;
    options.timeout_seconds = argc > 3 ? std::atof(argv[3]) : 10;
    options.context = &where;
    session.configure(options);
    fail_as_asked(session, mode, session.world().rank() == rank, rank);
    if (session.world().rank() == 0) std::cout << "ranks " << session.world().size() << std::endl;
    return mode == "return" ? 7 : 0;
  });
}
