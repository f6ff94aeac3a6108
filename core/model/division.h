// How a job's ranks divide the model: layers per stage and experts per share, in proportion to what
// the ranks can hold. Pure arithmetic; every rank computes the same. Matrices that tensor ranks
// split (heads, FFN columns, vocabulary) are divided evenly whatever the capacities.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/shard.h"

namespace glm {

// Bytes that each world rank can hold; empty: all the same.
using Capacities = std::vector<int64_t>;

struct Division {
  GridShape shape;
  std::vector<Range> stages;             // layers of each stage
  std::vector<ExpertPlacement> experts;  // of each exchange group of the job
  bool mtp = false;                      // the last stage holds the MTP layer

  Placement placement(int rank, Numerics numerics) const;
};

Division divide_model(const ModelConfig& config,
                      const DTypeChoice& dtypes,
                      const GridShape& shape,
                      const Capacities& capacities = {},
                      bool mtp = false);

// Experts per share in proportion to weights, each within one of its exact proportion. Where
// `limits` (experts a share can hold) are given and exceeded, others with room take what is too
// much. Returns the borders of an ExpertPlacement.
std::vector<int> expert_borders(int n_experts,
                                const std::vector<double>& weights,
                                const std::vector<int>& limits = {});

// What the ranks of unequal hosts can hold: the memory of a host divided by its ranks. Empty when
// all are within 5 % of the largest, so that small differences do not change how a model is
// divided.
Capacities measured_capacities(const std::vector<std::string>& hosts,
                               const std::vector<int64_t>& available);

}  // namespace glm
