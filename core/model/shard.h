// Which part of each tensor a rank holds: pure arithmetic on integers, tested exhaustively. How a
// matrix is split is a function of the numerics mode: by default input columns are split and
// partial sums added across ranks; in reproducible mode inputs are gathered and rows split, so that
// no sum ever crosses ranks. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/tensor_specs.h"
#include "parallel/expert_exchange.h"
#include "parallel/process_grid.h"

namespace glm {

enum class Numerics : uint8_t { kDefault, kReproducible };

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// Share r of n of `count` items in units of `unit` (the last unit may be short): even to within one
// unit.
Range even_share(int64_t count, int64_t unit, int r, int n);

// Query heads of tensor rank t and a copy of every key-value head they use. With t_size <=
// n_kv_heads borders fall between groups.
struct HeadShare {
  Range query;
  Range key_value;
};
HeadShare head_share(int n_heads, int n_kv_heads, int t, int t_size);

// The layers of each stage: stored bytes (embedding counts for the first stage, head for the last)
// in proportion to the stages' capacities, all alike when none are given. A stage may be empty.
// Size = pipeline. mtp: the last stage holds the MTP layer as well.
std::vector<Range> stage_layers(const ModelConfig& config,
                                const DTypeChoice& dtypes,
                                int pipeline,
                                const std::vector<double>& capacities = {},
                                bool mtp = false);

// Where a rank stands and how layers, experts and matrices are divided: everything shard_of()
// needs. core/model/division.h makes it.
struct Placement {
  GridShape shape;
  GridCoord coord;
  std::vector<Range> stages;  // layers of each stage
  ExpertPlacement experts;    // of this rank's exchange group
  Numerics numerics = Numerics::kDefault;
  bool mtp = false;  // the last stage holds the MTP layer, and the embedding for it

  Range layers() const { return stages[static_cast<size_t>(coord.pipeline)]; }
  bool holds_mtp() const { return mtp && coord.pipeline + 1 == shape.pipeline; }
  // Layers of this rank that keep keys and values.
  int64_t cached_layers() const { return layers().size() + (holds_mtp() ? 1 : 0); }
};

// This rank's part of a stored tensor, in stored rows and columns. A vector counts as one column:
// its elements are rows, cols is [0, 1).
struct Slab {
  Range matrices;           // experts, else [0, 1)
  std::vector<Range> rows;  // ascending, disjoint; joined they are the rows of the local matrix
  Range cols;               // of a multiple of 32 where quantised
  Range active_cols;  // the columns that belong to this rank: within cols, which is rounded out to
                      // blocks
  bool empty() const;
  int64_t local_rows() const;
};

// Absent (empty) when the rank's stage does not hold the tensor. MTP tensors belong to the last
// stage; the copies of embedding and head among them are never held: the model's own serve.
Slab shard_of(const TensorSpec& spec,
              StoredType type,
              const ModelConfig& config,
              const Placement& placement);
int64_t slab_bytes(const Slab& slab, StoredType type);

}  // namespace glm
