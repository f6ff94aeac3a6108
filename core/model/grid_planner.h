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

// The machine as the model of time sees it. The rates are those of one core, or of a GPU where each
// rank has one (cores = ranks of a host, threads = 1). Where they are the constants below, their
// proportions decide, not their size; core/model/machine.h has those of real machines.
struct Machine {
  std::vector<int> hosts;         // of each rank, by number
  int cores = 1;                  // of a host
  int threads = 1;                // of a rank
  double read_rate = 15e9;        // bytes/s of weights, one core
  double host_read_rate = 200e9;  // all cores of a host
  double product_rate = 1e11;     // multiply-adds/s of many rows, one core
  double row_rate = 5e9;          // bytes/s of activations around the experts, one core
  double cache_rate = 15e9;       // bytes/s of keys and values, for single rows, one core
  double attention_rate = 1e10;   // multiply-adds/s of attention over many rows, one core
  double touch_rate = 1e12;       // values/s of the small operations of a layer, one core
  double layer_seconds = 0;       // of a layer, whatever it does: launches, barriers
  double step_seconds = 0;        // of a step: planning, sampling
  std::vector<double> speeds;     // of each rank, 1: as above; empty: all alike
  double local_latency = 8e-6;    // seconds until two ranks of a group on one host have met
  double rank_latency = 0;        // seconds more for each further rank of a group
  double shared_latency = 30e-6;  // the same where ranks share cores and take turns
  double remote_latency = 20e-6;  // the same across hosts
  double wake_latency = 40e-6;    // until a rank that has waited long sees a message
  double local_rate = 5e9;        // bytes/s between ranks of a host
  double remote_rate = 3e9;       // bytes/s between hosts
};

// Where the time goes, in seconds.
struct TimeParts {
  double weights = 0;     // read from memory, where that takes longer than the products with them
  double cache = 0;       // keys and values read
  double arithmetic = 0;  // products of many rows, attention over them, sums of expert rows
  double dispatch = 0;    // rows to their experts
  double combine = 0;     // and back
  double sums = 0;        // all-reduces of tensor groups
  double sends = 0;       // from stage to stage
  double bubbles = 0;     // stages that wait for others
  double head = 0;        // the logits
  double rest = 0;        // norms, rotation, routing; launches; planning and sampling
  double total() const;
  TimeParts& operator+=(const TimeParts& other);
  TimeParts scaled(double factor) const;
};

struct GridEstimate {
  GridShape shape;
  double decode_seconds = 0;   // from one token of a sequence to the next
  double prefill_seconds = 0;  // all prompts of the workload
  double total_seconds = 0;    // prompts and answers
  TimeParts decode;            // the parts of decode_seconds
  TimeParts prefill;
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
// The same of uneven shares: experts over the speed of their share, of the last to be ready.
double busiest_share(const ExpertPlacement& placement,
                     int top_k,
                     const std::vector<double>& speeds = {});

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
  double position_bytes = 0;  // of one key-value head's key and value, in one layer
};
ModelCosts model_costs(const ModelConfig& config,
                       const std::map<std::string, StoredType, std::less<>>& stored,
                       KvDType kv_dtype = KvDType::kF16);

// division: how the layers and experts are really dealt out; null: evenly.
GridEstimate estimate_grid(const ModelConfig& config,
                           const ModelCosts& costs,
                           const GridShape& shape,
                           const Machine& machine,
                           const Workload& workload,
                           const Division* division = nullptr);

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
