// The parts a layer consists of. Each owns its split of the weights and the collective that belongs
// to it, so that a forward pass reads like the model's own description. Each acts on [T, hidden]
// f32 rows; T may be 0. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/arena.h"
#include "core/model/batch.h"
#include "core/model/kv_cache.h"
#include "core/model/weights.h"
#include "kernels/ops.h"
#include "parallel/expert_exchange.h"
#include "parallel/process_grid.h"

namespace glm {

// What a layer works with; lent by the model.
struct Runtime {
  const ModelConfig& config;
  Placement placement;
  ProcessGrid& grid;
  Ops& ops;
  Arena& arena;
  StepContext& where;
};

// Input columns divided over the tensor ranks: partial products are summed across ranks; in
// reproducible mode the inputs are gathered instead and the rows are divided.
class ReducedLinear {
 public:
  // `widths`: input columns of each tensor rank, for the gathering form.
  ReducedLinear(Runtime& run,
                const Weights& weights,
                const std::string& name,
                std::vector<int64_t> widths);
  // out [T, hidden] = the whole product on every tensor rank. in: this rank's columns [T,
  // widths[rank]].
  void forward(Tensor out, Tensor in);
  // Only this rank's part of the sum (default mode).
  void forward_partial(Tensor out, Tensor in);

 private:
  Tensor padded(Tensor in);

  Runtime& run_;
  Weight weight_;
  Slab slab_;
  std::vector<int64_t> widths_;
};

// x -> out_proj(attention(rope(qkv(x)))), this rank's heads. n = already normed input.
class Attention {
 public:
  Attention(Runtime& run, const Weights& weights, const std::string& prefix);
  // out [T, hidden]. rope: the step's table.
  void forward(Tensor out, Tensor n, const KvLayer& cache, const BatchRows& rows, Tensor rope);

 private:
  Runtime& run_;
  HeadLayout heads_;
  Weight qkv_;
  Tensor qkv_bias_, q_norm_, k_norm_;
  ReducedLinear out_;
};

// down(silu(gate(x)) * up(x)).
class Mlp {
 public:
  Mlp(Runtime& run, const Weights& weights, const std::string& prefix, int64_t intermediate);
  void forward(Tensor out, Tensor n);
  // The same in two steps. hidden: no other rank takes part; taken from the caller's arena scope.
  Tensor hidden(Tensor n);
  ReducedLinear& down() { return down_; }

 private:
  Runtime& run_;
  Weight gate_up_;
  ReducedLinear down_;
};

// Expert weights are reached only through here: resident today; cached, streamed or held by another
// rank later.
class ExpertStore {
 public:
  ExpertStore(const Weights& weights, const std::string& prefix)
      : gate_up_(weights.matrix(prefix + "experts.gate_up")),
        down_(weights.matrix(prefix + "experts.down")) {}
  const Weight& gate_up() const { return gate_up_; }
  const Weight& down() const { return down_; }

 private:
  Weight gate_up_, down_;
};

// Router, experts wherever they are, and the shared expert.
class Moe {
 public:
  Moe(Runtime& run, const Weights& weights, const std::string& prefix, ExpertExchange& exchange);
  void forward(Tensor out, Tensor n);

 private:
  // An output of this rank's experts for each assignment of the dispatched rows; in reproducible
  // mode this rank's columns of it.
  struct Outputs {
    ExpertGroups groups;
    Tensor rows;
  };
  Outputs local_experts(const ExpertExchange::Dispatched& in);
  Tensor gathered(const ExpertGroups& groups, Tensor h);
  bool unsummed() const { return run_.placement.numerics == Numerics::kReproducible; }

  Runtime& run_;
  ExpertExchange& exchange_;
  Weight router_;
  Tensor router_bias_;
  ExpertStore experts_;
  std::unique_ptr<Mlp> shared_;
};

// Columns of the intermediate dimension that each tensor rank holds.
std::vector<int64_t> ffn_widths(int64_t intermediate, int tensor);

}  // namespace glm
