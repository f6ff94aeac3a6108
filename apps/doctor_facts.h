// What `glm_infer doctor` notes of each rank before it judges all of them: versions, cores, limits,
// memory, GPUs, how it was launched. Travels to the other ranks as JSON.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apps/infer_options.h"
#include "io/json.h"
#include "parallel/mpi_session.h"

namespace glm {

struct GpuFact {
  std::string id;  // PCI bus id
  std::string uuid;
};

inline constexpr int64_t kUnlimited = -1;

struct RankFacts {
  int rank = 0;
  std::string host;
  int64_t pid = 0;
  int node_rank = 0;  // among the ranks that share memory with this one
  int node_size = 1;

  std::map<std::string, std::string> versions;  // by what they are of: "program", "MPI", ...
  std::string processor;                        // model name of the CPU
  std::string simd;                             // level of the CPU kernels, or why there is none

  std::map<std::string, std::string> environment;  // variables that matter to a launch, where set
  std::string input;                               // what stdin is: "a terminal", "a pipe", ...
  std::map<std::string, std::string> unresolved;   // hosts of the job without an address, and why

  std::vector<int> given;       // cores of the mask that the launcher has set
  std::vector<int> cores;       // those that a run computes on
  std::vector<int> host_cores;  // those that all ranks of the host share
  int physical_cores = 0;       // behind `cores`; 0: not known
  int threads = 1;
  double cpu_quota = 0;  // cores' worth of time that the control group gets; 0: no limit

  int64_t locked_memory = kUnlimited;  // limits of the process, in bytes
  int64_t address_space = kUnlimited;
  int64_t used_address_space = 0;
  int64_t open_files = kUnlimited;
  int64_t shared_memory = 0;  // of /dev/shm, in bytes, and what of it is free
  int64_t shared_memory_free = 0;
  bool infiniband = false;
  int64_t memory = 0;  // of the host, in bytes, and what a job may still take
  int64_t memory_available = 0;

  std::vector<GpuFact> gpus;  // that this rank sees
  std::string gpu_error;      // why it could not look for them
  std::string device;         // what it was given: "cpu", "cuda:0 (NVIDIA H200)"; "" before
  std::string device_id;      // of a GPU
};

// Of this rank. job: from begin_job(). hosts: of all ranks, to be looked up when they are several.
// Does not throw for what it finds missing.
struct Job;
RankFacts rank_facts(MpiSession& session, const Job& job, const std::vector<std::string>& hosts);

Json to_json(const RankFacts& facts);
RankFacts facts_from_json(const Json& json);
// Every rank's, on every rank. Collective.
std::vector<RankFacts> gather_facts(Communicator& world, const RankFacts& mine);

}  // namespace glm
