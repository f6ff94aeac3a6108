// Dispatch and combine: brings the rows of a step to the ranks that hold their experts, and the
// results back. Two ways, one interface (docs/parallelism.md):
//   reduce:   the expert group shares its tokens; each rank works on the rows it already has for
//             its local experts, and the tensor group's all-reduce is the combine. No dispatch.
//   alltoall: each rank of the group owns a share of the rows (its own batch with data ranks; an
//             even part of the shared rows with tensor ranks). A row travels once to each rank that
//             holds one of its experts, with the list of those experts; partial sums come back and
//             are added in ascending rank order.
// Either way the caller sees rows with a list of *local* experts, computes one partial sum per row,
// and hands it back; in reproducible mode it hands back each expert's output instead, and the sums
// are made where they are needed. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/arena.h"
#include "kernels/ops.h"
#include "parallel/process_grid.h"
#include "parallel/row_plan.h"

namespace glm {

enum class ExchangeKind : uint8_t { kAuto, kReduce, kAllToAll };

struct ExchangeCounters {
  int64_t dispatch_calls = 0;
  int64_t combine_calls = 0;
  int64_t rows_sent = 0;  // to other ranks, by dispatch; a row counts once per destination, also to
                          // those that did not ask for it (few rows go to all)
  int64_t bytes_sent = 0;  // by dispatch and combine, sums over the tensor group included
};

class ExpertExchange {
 public:
  // `max_rows`: rows of a step on one rank; buffers for the worst case are part of the plan
  // (buffer_bytes).
  struct Config {
    ExpertPlacement placement;
    int top_k = 0;
    int64_t hidden = 0;
    int64_t max_rows = 0;
    // kAuto: reduce for up to 64 rows where tokens are shared. kReduce needs expert <= tensor:
    // Error(kUsage) otherwise. expert 1 has nothing to dispatch and always reduces.
    ExchangeKind kind = ExchangeKind::kAuto;
    // Reproducible mode: columns of an expert's output that each slice computes; outputs travel
    // unsummed, combine_outputs() is the way back. Empty: partial sums travel, combine() is.
    std::vector<int64_t> output_widths;
  };
  ExpertExchange(ProcessGrid& grid, Device& device, Ops& ops, const Config& config);
  ~ExpertExchange();

  // Rows this rank has to process. experts holds global indices, -1 for none; those of other ranks'
  // experts may stand between them (Ops::group_rows skips them).
  struct Dispatched {
    Tensor x;        // [R, hidden]
    Tensor experts;  // [R, top_k] i32
    Tensor weights;  // [R, top_k] f32
  };
  // Rows of each data rank in the step that begins. With few of them messages have a size that all
  // ranks know, and no counts are exchanged. Before it is called the first time, they always are.
  void begin_step(std::span<const int64_t> rows_of_data_rank);

  // x [T, hidden], experts and weights [T, top_k] as routed. The result is valid until combine().
  Dispatched dispatch(Tensor x, Tensor experts, Tensor weights);
  // The same in two calls; rows travel in between, while the rank computes. It calls no verb of any
  // group there.
  void dispatch_start(Tensor x, Tensor experts, Tensor weights);
  Dispatched dispatch_finish();

  // partial [R, hidden]: sum of the local experts of each dispatched row. shared [T, hidden]: this
  // tensor rank's part of the shared expert for all rows of x, or absent. out [T, hidden] := the
  // whole sum, on every tensor rank.
  void combine(Tensor out, Tensor partial, Tensor shared);
  // Reproducible mode. outputs [groups.capacity, this slice's columns]: of each assignment of the
  // dispatched rows. shared [T, hidden]: the whole output of the shared expert, or absent. out :=
  // ((w1 o1 + w2 o2) + ...) + shared, in ascending expert index.
  void combine_outputs(Tensor out, Tensor outputs, const ExpertGroups& groups, Tensor shared);

  // Whether dispatch and combine of so many rows of the step that has begun only enqueue work,
  // where the verbs of the tensor group do (Communicator::recordable).
  bool recordable(int64_t rows);

  const ExchangeCounters& counters() const;
  // Upper bound of R, for scratch.
  static int64_t max_dispatched_rows(const GridShape& shape, const Config& config);
  // Bytes the constructor takes from the device.
  static int64_t buffer_bytes(const GridShape& shape, const Config& config);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glm
