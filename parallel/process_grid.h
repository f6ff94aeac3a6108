// From a world of ranks to the groups of a run: data x pipeline x tensor == world; the expert axis
// re-folds the data x tensor plane of a stage. Rank order: tensor fastest, then data, then
// pipeline. Shape logic is pure and tested exhaustively; ProcessGrid holds the communicators.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "parallel/communicator.h"
#include "parallel/nccl_groups.h"

namespace glm {

struct GridShape {
  int data = 1;
  int pipeline = 1;
  int tensor = 1;
  int expert = 1;
  int world() const { return data * pipeline * tensor; }
  std::string text() const;  // "data 1 x pipeline 2 x tensor 2, expert 2"
  bool operator==(const GridShape&) const = default;
};

struct GridCoord {
  int data = 0;
  int pipeline = 0;
  int tensor = 0;
  // Within the expert plane of a stage: experts are owned by `expert` neighbouring blocks of ranks;
  // a block holds expert_slices ranks that share an expert's columns.
  int expert = 0;        // which share of the experts
  int expert_slice = 0;  // which slice of each of them
};

GridCoord grid_coord(const GridShape& shape, int rank);
int grid_rank(const GridShape& shape, int data, int pipeline, int tensor);
// Ranks over which the columns of one expert are sliced: tensor / expert when expert divides
// tensor, else 1.
int expert_slices(const GridShape& shape);
// Ranks of an exchange group, and which of them (counted over the whole job) a rank belongs to.
int exchange_size(const GridShape& shape);
int exchange_group(const GridShape& shape, const GridCoord& coord);

// What the user asked for; absent axes are chosen.
struct GridRequest {
  std::optional<int> data, pipeline, tensor, expert;
};
// Completes a request for `world` ranks (docs/parallelism.md): nothing given: 2 = tensor 2; 4 =
// pipeline 2 x tensor 2; 2n = pipeline n x tensor 2; odd = pipeline only; some of the three axes
// given: the others 1, pipeline takes the rest; expert: data x tensor for a MoE model, 1 for a
// dense one. Throws Error(kUsage) with the legal values for what cannot be.
GridShape complete_grid(const GridRequest& request, int world, bool is_moe);

class ProcessGrid {
 public:
  // Collective over world. Groups: tensor (same data and pipeline) and the expert group of the
  // exchange; pipeline neighbours are reached through world().
  // link: which device the tensors of this rank are on; without one they are the host's, or travel
  // through its memory. All ranks give one, or none does.
  ProcessGrid(Communicator& world, const GridShape& shape, const DeviceLink& link = {});

  const GridShape& shape() const { return shape_; }
  const GridCoord& coord() const { return coord_; }
  Communicator& world() { return own_world_ ? *own_world_ : world_; }
  Communicator& tensor() { return *tensor_; }
  // The ranks among which tokens are exchanged for the experts: max(tensor, expert) neighbours of
  // the stage plane.
  Communicator& exchange() { return *exchange_; }
  // The ranks that hold slices of the same experts.
  Communicator& slices() { return *slices_; }
  int rank_of_stage(int pipeline) const;  // world rank with my data and tensor coordinates
  bool first_stage() const { return coord_.pipeline == 0; }
  bool last_stage() const { return coord_.pipeline == shape_.pipeline - 1; }
  // How tensors of devices travel (DeviceGroups::transport_text); "" without a device.
  std::string transport_text() const { return groups_ ? groups_->transport_text() : ""; }

 private:
  std::unique_ptr<Communicator> group(int color, int key, const char* name);

  Communicator& world_;
  GridShape shape_;
  GridCoord coord_;
  std::shared_ptr<DeviceGroups> groups_;
  std::unique_ptr<Communicator> own_world_;  // with a device
  std::unique_ptr<Communicator> tensor_;
  std::unique_ptr<Communicator> exchange_;
  std::unique_ptr<Communicator> slices_;
};

}  // namespace glm
