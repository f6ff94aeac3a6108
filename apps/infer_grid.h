// The ranks of a job as they are found, and the grid they take. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "apps/infer_job.h"
#include "core/model/grid_planner.h"

namespace glm {

// What was measured of each rank; the lists are empty in a plan for ranks that do not run.
struct JobRanks {
  int count = 1;
  std::vector<std::string> hosts;
  std::vector<int64_t> available;      // bytes that the rank's host has left
  std::vector<int64_t> process_bytes;  // of the rank before it loads anything
  int cores = 1;                       // of a host, the least of all
};

// Of the running ranks. Collective.
JobRanks measure_ranks(MpiSession& session);
// Of ranks that do not run: all alike, on one host with a core for each of their threads.
JobRanks imagined_ranks(int count, int threads);

// --capacity as bytes per rank, or what was measured. Error(kUsage) for a list of another length.
Capacities job_capacities(const InferOptions& options, const JobRanks& ranks);

// Of each host: what its ranks still need, and what it has left.
std::map<std::string, std::pair<int64_t, int64_t>> node_bytes(const MemoryPlan& plan,
                                                              const JobRanks& ranks);

// The fastest grid that fits, by the model of time. fits: plans the job on a grid.
GridChoice choose_job_grid(const Job& job,
                           const JobRanks& ranks,
                           const std::function<bool(const GridShape&)>& fits);

}  // namespace glm
