// The way back in reproducible mode: the outputs of experts travel unsummed, and the rank that
// needs a row's sum adds them itself, in ascending expert index, whoever computed them.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/device.h"
#include "kernels/ops.h"
#include "parallel/process_grid.h"
#include "parallel/row_plan.h"

namespace glm {

class OutputReturn {
 public:
  struct Sizes {
    int64_t own = 0;       // rows whose sums this rank needs
    int64_t received = 0;  // rows that it computes outputs for
    int64_t hidden = 0;
    int top_k = 0;
  };
  // widths: columns of an output that each slice of an expert computes.
  OutputReturn(ProcessGrid& grid,
               Device& device,
               Ops& ops,
               const ExpertPlacement& placement,
               const Sizes& sizes,
               const std::vector<int64_t>& widths);

  // What this rank computed: a row of `rows` for each assignment of `groups`. They go to the ranks
  // of the exchange group that the computed-for rows came from, from_rows[p] of them from rank p;
  // when all ranks share the rows, from_rows is empty and everybody gets everything.
  struct Outputs {
    Tensor rows;
    const ExpertGroups& groups;
    std::span<const int64_t> from_rows;
  };
  // out [n, hidden] := the weighted sums of n rows with `experts` (on the host) and `weights`
  // [n, top_k].
  void run(Tensor out, const Outputs& outputs, std::span<const int32_t> experts, Tensor weights);

  static int64_t buffer_bytes(const GridShape& shape,
                              const ExpertPlacement& placement,
                              const Sizes& sizes);

 private:
  void plan(std::span<const int32_t> experts, int64_t n_rows);
  Tensor packed(const Outputs& outputs);
  Tensor joined();

  ProcessGrid& grid_;
  Device& device_;
  Ops& ops_;
  ExpertPlacement placement_;
  Sizes sizes_;
  std::vector<int64_t> widths_;
  std::vector<int64_t> per_share_;    // outputs that this rank needs of each share
  std::vector<int64_t> next_;         // per share: place of its next output among all
  std::vector<int64_t> send_, recv_;  // elements per rank of the group
  std::vector<int64_t> from_;         // outputs per source
  std::vector<int32_t> host_order_, host_index_, host_places_;
  Tensor index_;                     // [outputs computed] i32
  Tensor order_;                     // [own, top_k] i32
  Tensor packed_, pieces_, joined_;  // f32, used as [outputs, columns]
};

}  // namespace glm
