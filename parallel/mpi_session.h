// MPI from start to end: initialisation (yield when ranks exceed cores, checked launch), the world
// communicator, node facts, heartbeats, and the one way in which an error ends the job. Only
// parallel/mpi_*.cpp see the MPI library. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace glm {

// An error that every rank has in the same words, from on_root(): said once, and all leave in good
// order. Who catches it may go on, as all the other ranks do.
class AgreedError final : public Error {
 public:
  using Error::Error;
};

class MpiSession {
 public:
  // Before MPI_Init: sets Open MPI's yield when ranks exceed cores, refuses a Slurm step of several
  // tasks that would become several worlds of one rank (Error kUsage). program: "glm_infer", for
  // the error line. stops_on_request: SIGUSR1 and SIGTERM do not end this process, they make
  // stop_signal() say so; a second one ends it at once. start_seconds: until all ranks must have
  // talked to each other, at least 10.
  MpiSession(int* argc,
             char*** argv,
             const std::string& program,
             bool stops_on_request = false,
             double start_seconds = 300);
  // Finalizes MPI (never after an error: run() leaves by abort).
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  // Options are known only after MPI_Init: deadline, context and trace of all communicators made
  // from now on.
  void configure(const CommOptions& options);

  // The signal that has told this rank to stop; 0: none. From any thread.
  int stop_signal() const;

  // Where this rank is. For CommOptions::context: it is still there when an error of run() is told.
  StepContext& context();

  Communicator& world();
  int node_rank() const;  // among the ranks of this host
  int node_size() const;
  std::string host() const;
  std::string library_version() const;  // "Open MPI v4.1.4"

  // Runs body and returns its exit code. An exception becomes ONE line "glm_<program>: error: ..."
  // on stderr per job, with rank, host and context(): one rank of each host is elected, hosts speak
  // one after the other, and the first to speak ends the job by MPI_Abort with the error's exit
  // code. A job of one rank returns the code. Errors that all ranks share (options) belong into
  // on_root().
  int run(const std::function<int()>& body);

  // Runs `judge` on rank 0 only and shares the verdict: on success returns everywhere; on an Error
  // all ranks leave by the same exit code with a single line. Collective.
  void on_root(const std::function<void()>& judge);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The main of a program: opens a session and runs `body` in it. Covers errors of the start as well.
//   int main(int argc, char** argv) {
//     return glm::run_mpi_program(argc, argv, "glm_infer", [&](glm::MpiSession& session) { ... });
//   }
int run_mpi_program(int argc,
                    char** argv,
                    const std::string& program,
                    const std::function<int(MpiSession& session)>& body,
                    bool stops_on_request = false,
                    double start_seconds = 300);

// More ranks than the host has cores for this job.
bool ranks_exceed_cores(int node_size);

// Cores this rank may use: the node's allowed cores (those of the launcher when mpirun has bound us
// to one) divided by the ranks of the node.
struct CpuShare {
  std::vector<int> cores;
  bool widened = false;    // the mask of the process was narrower
  std::vector<int> given;  // the mask of the process
  std::vector<int> host;   // what all ranks of the host share
};
CpuShare cpu_share(int node_rank, int node_size);
// Sets the process mask to `cores` (before threads start).
void bind_process(const std::vector<int>& cores);

}  // namespace glm
