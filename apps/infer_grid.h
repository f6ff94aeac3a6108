// The ranks of a job as they are found, and the grid they take. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <optional>
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
  std::vector<std::string> memories;  // where the rank's plan lies: "host n1", "GPU 0000:01:00.0 of
                                      // host n1"
  std::vector<int64_t> available;     // bytes of it that a plan may use (--memory-fraction)
  std::vector<int64_t> process_bytes;  // of the rank before it loads anything; of a GPU: 0
  int cores = 1;                       // of a host, the least of all

  bool on_gpu(size_t rank) const {
    return rank < memories.size() && memories[rank].starts_with("GPU ");
  }
};

// Of the running ranks, which compute on these devices. Collective.
JobRanks measure_ranks(MpiSession& session, Device& device, std::optional<double> memory_fraction);
// Of ranks that do not run: all alike, on one host with a core for each of their threads.
JobRanks imagined_ranks(int count, int threads);

// The parts of settling a job that need no running ranks: the opened model's config and types, and
// what ranks can hold; then limits, division and plan on one grid, and whether that fits.
void settle_model(Job& job, const JobRanks& ranks);
bool settle_on(Job& job, const JobRanks& ranks, const GridShape& shape);

// --capacity as bytes per rank, or what was measured. Error(kUsage) for a list of another length.
Capacities job_capacities(const InferOptions& options, const JobRanks& ranks);

// Of each memory: what its ranks still need, and what they may use of it.
struct MemoryNeed {
  int64_t needed = 0;
  int64_t available = 0;
};
std::map<std::string, MemoryNeed> memory_needs(const MemoryPlan& plan, const JobRanks& ranks);

// The fastest grid that fits, by the model of time. fits: plans the job on a grid.
GridChoice choose_job_grid(const Job& job,
                           const JobRanks& ranks,
                           const std::function<bool(const GridShape&)>& fits);

}  // namespace glm
