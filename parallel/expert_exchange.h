// Dispatch and combine: brings the rows of a step to the ranks that hold their experts, and the
// results back. Two ways, one interface (docs/parallelism.md):
//   reduce:   the expert group shares its tokens; each rank works on the rows it already has for
//             its local experts, and the tensor group's all-reduce is the combine. No dispatch.
//   alltoall: each rank of the group owns a share of the rows (its own batch with data ranks; an
//             even part of the shared rows with tensor ranks). A row travels once to each rank that
//             holds one of its experts, with the list of those experts; partial sums come back and
//             are added in ascending rank order.
// Either way the caller sees rows with a list of *local* experts, computes one partial sum per row,
// and hands it back. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>

#include "core/base/arena.h"
#include "kernels/ops.h"
#include "parallel/process_grid.h"

namespace glm {

enum class ExchangeKind : uint8_t { kAuto, kReduce, kAllToAll };

struct ExchangeCounters {
  int64_t dispatch_calls = 0;
  int64_t combine_calls = 0;
  int64_t rows_sent = 0;   // to other ranks, by dispatch; a row counts once per destination
  int64_t bytes_sent = 0;  // by dispatch and combine, sums over the tensor group included
};

// Who holds expert e: ranks [first, first + n) of the exchange group (n = slices of its columns).
struct ExpertPlacement {
  int n_experts = 0;
  int n_shares = 1;  // GridShape::expert
  int n_slices = 1;
  // Experts of share s: [begin(s), begin(s + 1)), uneven counts allowed, shares may be empty.
  int begin(int share) const { return static_cast<int>(int64_t{n_experts} * share / n_shares); }
  int share_of(int expert) const;
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
  };
  ExpertExchange(ProcessGrid& grid, Device& device, Ops& ops, const Config& config);
  ~ExpertExchange();

  // Rows this rank has to process. experts holds global indices; entries of other ranks' experts
  // are -1.
  struct Dispatched {
    Tensor x;        // [R, hidden]
    Tensor experts;  // [R, top_k] i32
    Tensor weights;  // [R, top_k] f32
  };
  // x [T, hidden], experts and weights [T, top_k] as routed. The result is valid until combine().
  Dispatched dispatch(Tensor x, Tensor experts, Tensor weights);

  // partial [R, hidden]: sum of the local experts of each dispatched row. shared [T, hidden]: this
  // tensor rank's part of the shared expert for all rows of x, or absent. out [T, hidden] := the
  // whole sum, on every tensor rank.
  void combine(Tensor out, Tensor partial, Tensor shared);

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
