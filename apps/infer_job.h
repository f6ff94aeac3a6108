// What all ranks agree on before anything is loaded: the model's index, grid, limits of a step, the
// memory plan. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/infer_options.h"
#include "core/model/memory_plan.h"
#include "core/model/model.h"
#include "core/model/model_source.h"
#include "parallel/mpi_session.h"

namespace glm {

struct Job {
  InferOptions options;
  std::unique_ptr<Device> device;  // of this rank
  bool uses_gpus = false;          // any rank does
  ModelSource source;
  ModelConfig config;
  std::map<std::string, StoredType, std::less<>>
      stored;                          // every tensor's type, planned or as in the file
  bool with_mtp = false;               // the model has an MTP layer
  DraftMode drafts = DraftMode::kOff;  // else it is loaded, on the last stage
  std::string no_drafts;               // why --mtp auto is off from the start
  Placement placement;                 // of this rank
  ModelOptions model;                  // limits of a step, cache
  int threads = 1;
  std::vector<int> cores;
  bool widened = false;
  Capacities capacities;  // of each rank; empty: all alike
  Division division;
  MemoryPlan plan;
  std::string grid_reason;   // why this grid, where the program chose it
  std::string grid_ranking;  // the best grids with estimates, likewise
  std::string advice;        // what would fit, where the plan does not
};

// Opens the model on rank 0, shares it, and settles everything above. Collective. Throws (once for
// all ranks) what the parts throw: Error(kUsage) for illegal grids, Error(kModelFile) for bad
// models.
Job prepare_job(MpiSession& session, const InferOptions& options);

// The parts of prepare_job(), for what judges them one by one. Collective, in this order.
// Cores and threads of this rank.
Job begin_job(const MpiSession& session, const InferOptions& options);
// Opens the model on rank 0, shares it, and compares the files of all hosts.
void share_model(MpiSession& session, Job& job);
// On job.device: grid, limits, plan, and what of it is this rank's.
void settle_job(MpiSession& session, Job& job);
// The same for a job of one rank that runs beside others: not collective, and it always fits.
void settle_alone(Job& job);

// What the operations of a rank have room and leave for.
OpsLimits job_ops_limits(const Job& job, const GridShape& shape);

// Refuses a plan that exceeds a rank's --capacity: Error(kResources) names the first such rank.
void check_capacity(const Job& job);

// Refuses to load what does not fit: every rank's plan against the free memory of its GPU or host.
// Collective; Error(kResources) says how much is missing where, and what would help.
void check_memory(MpiSession& session, const Job& job);

// Bytes of this process: resident now, at its highest, and what the host has left for new ones.
int64_t resident_bytes();
int64_t peak_resident_bytes();
int64_t available_bytes();
// The highest begins anew with what is resident now; where the system does not allow that, it
// stays.
void forget_peak_resident();

inline double gigabytes(double bytes) { return bytes * 1e-9; }
inline double gigabytes(int64_t bytes) { return gigabytes(static_cast<double>(bytes)); }

}  // namespace glm
