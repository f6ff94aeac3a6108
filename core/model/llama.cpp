// Llama 2 and 3 and dense Qwen3: pre-norm layers, rotary embedding of the whole head in half-split
// pairing, norms of queries and keys in Qwen3. SPDX-License-Identifier: MIT
#include "core/model/model.h"

namespace glm {
namespace {

struct LlamaLayer {
  Tensor input_norm;
  Attention attention;
  Tensor mlp_norm;
  Mlp mlp;
};

class Llama final : public Model {
 public:
  Llama(const ModelParts& parts, const ModelOptions& options) : Model(parts, options) {
    for (int64_t i = 0; i < n_local_layers(); ++i) {
      const std::string p = layer_prefix(i);
      layers_.push_back({weights_.vector(p + "input_norm"),
                         Attention(run_, weights_, p),
                         weights_.vector(p + "mlp_norm"),
                         Mlp(run_, weights_, p + "mlp.", parts.config.intermediate)});
    }
  }

 private:
  void forward_layer(int64_t i, Tensor x, const Batch& batch) override {
    ArenaScope scope(arena_);
    LlamaLayer& layer = layers_[static_cast<size_t>(i)];
    const Tensor n = take(x.rows(), x.cols());
    const Tensor y = take(x.rows(), x.cols());

    run_.ops.rms_norm(n, x, layer.input_norm, run_.config.norm_eps);
    layer.attention.forward(y, n, cache_->layer(i), batch.rows(), rope_);
    run_.ops.add_rms_norm(n, x, y, layer.mlp_norm, run_.config.norm_eps);
    layer.mlp.forward(y, n);
    run_.ops.add(x, y);
  }

  std::vector<LlamaLayer> layers_;
};

}  // namespace

std::unique_ptr<Model> make_llama(const ModelParts& parts, const ModelOptions& options) {
  return std::make_unique<Llama>(parts, options);
}

}  // namespace glm
