// Which grid a job takes when its user names none: a model of the time of a step on every legal
// grid, from the bytes each rank reads, the products it computes and the messages it waits for.
// Pure arithmetic with fixed constants of a common server, so that the same job always gets the
// same grid. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/model/division.h"

namespace glm {

struct Workload {
  int64_t prompt_tokens = 512;
  int64_t answer_tokens = 128;
  int64_t sequences = 1;     // that run at once
  int64_t chunk_rows = 512;  // of a prompt, per step
};

// The machine as the model of time sees it. The rates are those of one core; their proportions
// decide, not their size.
struct Machine {
  std::vector<int> hosts;         // of each rank, by number
  int cores = 1;                  // of a host
  int threads = 1;                // of a rank
  double read_rate = 15e9;        // bytes/s of weights, one core
  double host_read_rate = 200e9;  // all cores of a host
  double product_rate = 1e11;     // multiply-adds/s of many rows, one core
  double row_rate = 5e9;          // bytes/s of activations around the experts, one core
  double local_latency = 8e-6;    // seconds until all ranks of a group on one host have met
  double shared_latency = 30e-6;  // the same where ranks share cores and take turns
  double remote_latency = 20e-6;  // the same across hosts
  double wake_latency = 40e-6;    // until a rank that has waited long sees a message
  double local_rate = 5e9;        // bytes/s between ranks of a host
  double remote_rate = 3e9;       // bytes/s between hosts
};

struct GridEstimate {
  GridShape shape;
  double decode_seconds = 0;   // from one token of a sequence to the next
  double prefill_seconds = 0;  // all prompts of the workload
  double total_seconds = 0;    // prompts and answers
  bool fits = true;
};

struct GridChoice {
  GridShape shape;
  std::vector<GridEstimate> ranked;  // those looked at, fastest first
  std::string reason;                // for the user, one line
};

// Every grid of `world` ranks that complete_grid() would accept. shares_tokens: only those whose
// expert groups share their tokens (--expert-exchange reduce).
std::vector<GridShape> legal_grid_shapes(int world, bool is_moe, bool shares_tokens);

// Experts that the busiest of n_shares even shares has to run for one row: the mean over all
// equally likely choices of top_k experts.
double busiest_share(int n_experts, int top_k, int n_shares);

// What a step reads, and multiplies for each row: stored bytes and elements.
struct WeightCost {
  double bytes = 0;
  double elements = 0;
};
struct LayerCosts {
  WeightCost attention, ffn;  // split by tensor ranks; ffn: dense or shared
  WeightCost whole;           // on every rank
  WeightCost expert;          // one of them
  bool moe = false;
};
struct ModelCosts {
  std::vector<LayerCosts> layers;
  WeightCost head;
};
ModelCosts model_costs(const ModelConfig& config,
                       const std::map<std::string, StoredType, std::less<>>& stored);

GridEstimate estimate_grid(const ModelConfig& config,
                           const ModelCosts& costs,
                           const GridShape& shape,
                           const Machine& machine,
                           const Workload& workload);

// The fastest of the legal grids that fit; within 5 % of it, the default of complete_grid() or what
// is nearest to it: same data, pipeline and tensor, then less memory. fits: asked for the fastest
// ones, one after the other. Where none fits the default is taken.
GridChoice choose_grid(const ModelConfig& config,
                       const std::map<std::string, StoredType, std::less<>>& stored,
                       const Machine& machine,
                       const Workload& workload,
                       bool shares_tokens,
                       const std::function<bool(const GridShape&)>& fits);

// The best grids with their estimates, for --dry-run.
std::string ranking_text(const GridChoice& choice);

}  // namespace glm
