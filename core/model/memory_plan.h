// Bytes per rank before anything is allocated: weights by kind, cache, buffers, the process itself.
// Printed by --dry-run and checked against the node's memory before loading.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/model/division.h"

namespace glm {

struct RankPlan {
  GridCoord coord;
  Range layers;
  Range experts;                    // of each layer; empty in a dense model
  int expert_slices = 1;            // ranks that divide the columns of these experts
  std::map<Kind, int64_t> weights;  // bytes by kind
  int64_t replicated_bytes = 0;     // of the weights: a rank before this one holds them too
  int64_t kv_bytes = 0;
  int64_t buffer_bytes = 0;   // step scratch, exchange, kernels: filled in by the model
  int64_t process_bytes = 0;  // MPI, HDF5, code, measured at start; 0 in a plan without a run
  int64_t weight_bytes() const;
  int64_t total_bytes() const;
};

struct MemoryPlan {
  GridShape shape;
  int64_t model_bytes = 0;  // every tensor that is loaded, once
  int64_t mtp_bytes = 0;    // of the MTP layer in the file, copies of embedding and head included
  bool mtp_loaded = false;
  bool mtp_believed = false;  // config.json announces it; no tensors were seen
  std::vector<RankPlan> ranks;
};

struct PlanRequest {
  DTypeChoice dtypes;
  KvDType kv_dtype = KvDType::kF16;
  int64_t kv_blocks = 0;  // pages of 16 positions per rank
  Numerics numerics = Numerics::kDefault;
  bool with_mtp = false;  // the model has an MTP layer; whether it is loaded says the division
  // When the model file exists: the stored types of its tensors by name, instead of dtypes.
  std::map<std::string, StoredType, std::less<>> stored;
};

// The sum of all weight_bytes() is model_bytes and the sum of all replicated_bytes, exactly.
MemoryPlan plan_division(const ModelConfig& config,
                         const Division& division,
                         const PlanRequest& request);
// Of ranks with equal capacities.
MemoryPlan plan_memory(const ModelConfig& config,
                       const GridShape& shape,
                       const PlanRequest& request);

// The first rank whose plan exceeds its capacity; -1 when all are within.
int rank_over_capacity(const MemoryPlan& plan, const Capacities& capacities);

// Divides the model among unequal ranks. In proportion to the capacities first; where a rank would
// exceed its own with everything else it holds, in proportion to what is left beside that. The
// result may still not fit: ask rank_over_capacity(). plan_of: the whole plan (buffers and process
// included) of a division.
struct FittedPlan {
  Division division;
  MemoryPlan plan;
};
FittedPlan fit_plan(const ModelConfig& config,
                    const DTypeChoice& dtypes,
                    const GridShape& shape,
                    const Capacities& capacities,
                    const std::function<MemoryPlan(const Division&)>& plan_of,
                    bool mtp = false);

// The table of --dry-run; contains a line "weights total X.XX GB" (GB = 1e9 bytes), cache and
// buffers apart.
std::string plan_text(const ModelConfig& config, const MemoryPlan& plan);

}  // namespace glm
