// A model on this rank: its stage's layers, run over one step. The base class does what all
// architectures share (embedding, stage borders, final norm, head); an architecture file holds
// forward_layer(), straight-line and without backend or rank words. Read next: glm4_moe.cpp.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/model/layers.h"

namespace glm {

// How many steps' rows of hidden states a last stage with an MTP layer keeps (StepPlan::hidden):
// each waits for its draft pass while later steps are under way.
inline int64_t kept_hidden_steps(const GridShape& shape) { return shape.pipeline; }

struct ModelOptions {
  KvDType kv_dtype = KvDType::kF16;
  int64_t kv_blocks = 0;  // pages of this rank's cache
  StepLimits limits;
  ExchangeKind exchange = ExchangeKind::kAuto;
};

// Everything a model is built on; all of it outlives the model.
struct ModelParts {
  const ModelConfig& config;
  const Placement& placement;
  ProcessGrid& grid;
  Device& device;
  Ops& ops;
  const Weights& weights;
  StepContext& where;
};

class Model {
 public:
  Model(const ModelParts& parts, const ModelOptions& options);
  virtual ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // Runs this rank's stage over the rows of a step: embeds or receives x, runs the layers, sends x
  // on. Returns, on the last stage, this tensor rank's columns of the logits [n_logits, local
  // vocabulary]; absent elsewhere. Valid until the next call. Collective over the replica; all data
  // ranks call it for every step, with 0 rows where idle.
  Tensor forward(const Batch& batch);
  // The MTP layer over rows whose hidden states an earlier forward() has kept: row i has the token
  // that follows its position, and its logits guess the one behind that. Returns as forward() does;
  // the other stages have no part in it and return at once.
  Tensor draft(const Batch& batch);

  // Vocabulary columns of each tensor rank of the last stage.
  const std::vector<int64_t>& vocab_widths() const { return vocab_widths_; }
  const ExchangeCounters& exchange_counters() const;

 protected:
  // x [T, hidden], the residual stream, updated in place. local_layer counts from 0 on this stage.
  virtual void forward_layer(int64_t local_layer, Tensor x, const Batch& batch) = 0;
  // x := the MTP layer's output behind its final norm, where x holds the embeddings of the
  // following tokens and `hidden` [T, hidden] the model's output behind the final norm.
  virtual void forward_mtp(Tensor x, Tensor hidden, const Batch& batch);

  Tensor take(int64_t rows, int64_t cols) { return arena_.take(DType::kF32, {rows, cols}); }
  std::string layer_prefix(int64_t local_layer) const;
  int64_t global_layer(int64_t local_layer) const {
    return run_.placement.layers().begin + local_layer;
  }
  int64_t n_local_layers() const { return run_.placement.layers().size(); }

  Arena arena_;
  Runtime run_;
  const Weights& weights_;
  std::unique_ptr<ExpertExchange> exchange_;
  std::unique_ptr<KvCache> cache_;
  Tensor rope_;  // the step's table

 private:
  bool recordable(const Batch& batch) const;
  // `pass` on the device, recorded and replayed where its work is the same each time.
  Tensor replayed(const Batch& batch, const std::function<Tensor()>& pass);
  Tensor run_step(const Batch& batch);
  Tensor run_draft(const Batch& batch);
  Tensor begin(const Batch& batch);
  void embed(Tensor x, const Batch& batch);
  void run_layer(int64_t local_layer, Tensor x, const Batch& batch);
  // Throws Error(kNumerical) that begins with `what`, and the layer it is of, when x holds NaN or
  // infinities: nothing behind them would make sense.
  void check_finite(Tensor x, const char* what, int64_t layer = -1) const;
  Tensor logits(Tensor x, const Batch& batch);
  Tensor head(Tensor picked);
  Tensor kept_hidden(const Batch& batch);

  Device& device_;
  // Of recorded passes, by Batch::replay_key: the device's key, and what comes out.
  std::map<std::vector<int64_t>, std::pair<uint64_t, Tensor>> replayed_;
  Tensor inv_freq_;
  std::vector<int64_t> vocab_widths_;
  std::vector<int64_t> step_rows_;  // of each data rank
  Tensor hidden_;                   // [kept_hidden_steps(), max_rows, hidden]; absent without MTP
};

// The forward pass for the family of parts.config.
std::unique_ptr<Model> make_model(const ModelParts& parts, const ModelOptions& options);

// One per architecture file.
std::unique_ptr<Model> make_glm4(const ModelParts& parts, const ModelOptions& options);
std::unique_ptr<Model> make_glm4_moe(const ModelParts& parts, const ModelOptions& options);
std::unique_ptr<Model> make_llama(const ModelParts& parts, const ModelOptions& options);

// For the memory plan: bytes that Model's constructor takes beside the weights and the cache (step
// scratch, exchange buffers), the limits of its operations, and what they take.
int64_t model_scratch_bytes(const ModelConfig& config,
                            const Placement& placement,
                            const ModelOptions& options);
OpsLimits ops_limits(const ModelConfig& config, const GridShape& shape, const StepLimits& limits);

}  // namespace glm
