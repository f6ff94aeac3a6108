// The state of an ExpertExchange, and its two ways: expert_exchange.cpp holds the one for ranks
// that share their tokens, row_exchange.cpp the one for ranks that bring rows of their own.
// SPDX-License-Identifier: MIT
#pragma once

#include <numeric>
#include <optional>
#include <vector>

#include "parallel/expert_exchange.h"
#include "parallel/output_return.h"

namespace glm {

// Up to so many rows of a rank, all of them go to everybody: one exchange instead of three, of a
// size that all ranks know, with lists that are made on the device.
inline constexpr int64_t kPaddedRows = 8;

// Rows of one step in the buffers of a rank.
struct ExchangeSizes {
  bool all_to_all = false;
  int64_t own = 0;       // rows that this rank brings
  int64_t sent = 0;      // copies of them, one per destination
  int64_t received = 0;  // rows that arrive
};

struct ExpertExchange::Impl {
  Impl(ProcessGrid& grid_in, Device& device_in, Ops& ops_in, const Config& config_in);
  // Left by an error between start and finish: peers must not read what goes away now.
  ~Impl() { grid.exchange().all_to_all_cancel(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  bool reduces(int64_t rows) const;
  Dispatched dispatch_shared(Tensor x, Tensor experts, Tensor weights);
  void start_rows(Tensor x, Tensor experts, Tensor weights);
  Dispatched finish_rows();
  void combine_shared(Tensor out, Tensor partial, Tensor shared);
  void combine_rows(Tensor out, Tensor partial, Tensor shared);
  void combine_outputs(Tensor out, Tensor outputs, const ExpertGroups& groups, Tensor shared);
  void share_rows(int64_t rows);
  bool padded_step();
  void start_padded(Tensor x, Tensor experts, Tensor weights);
  void read_routing(Tensor experts, Tensor weights);
  void allocate_lists();
  void exchange_counts();
  void gather(Tensor own);
  void split_arrived();
  int64_t arriving() const { return total_rows(recv_rows); }
  // Bytes that this rank has sent in the groups of the exchange.
  int64_t sent_bytes() {
    return grid.exchange().counters().sent_bytes + grid.tensor().counters().sent_bytes;
  }

  ProcessGrid& grid;
  Device& device;
  Ops& ops;
  Config config;
  ExchangeSizes sizes;
  ExchangeCounters counters;

  // Of the step.
  std::vector<int64_t> step_rows;  // per data rank; empty: not known

  // Of the time between dispatch and combine.
  bool reduce = true;
  bool padded = false;
  int64_t n_sent = 0;     // rows in all messages
  int64_t first_own = 0;  // own rows of x: [first_own, first_own + n_own)
  int64_t n_own = 0;
  Dispatched local;    // reduce: what dispatch_finish() gives
  Tensor own_weights;  // reproducible: [n_own, top_k]

  RowPlan plan;
  // Per rank of the exchange group, or of the tensor group (share).
  std::vector<int64_t> recv_rows, sent_rows, ones, share;
  std::vector<int32_t> send_counts, recv_counts;

  // Host sides of small things. Routing: a row is top_k experts, then top_k weights as bits.
  std::vector<int32_t> host_experts, recv_routing, split_routing;
  std::vector<float> host_weights;

  Tensor experts_in, weights_in;  // [received, top_k]
  Tensor rows_out, rows_in;       // [sent, hidden], [received, hidden]
  Tensor index;                   // [sent] i32: own row of each sent one
  Tensor borders;                 // [shares + 1] i32: first expert of each share
  // Padded steps: [rows for or from all ranks, 2 top_k] i32, as in RowCopies.
  Tensor routing_out, routing_in;
  Tensor copies, ones_of_copies;  // [own, most copies of a row] i32 and f32
  Tensor own_sum, own_shared;     // [own, hidden]
  std::optional<OutputReturn> outputs_back;
};

}  // namespace glm
