// GLM-4.5 family (GLM-4.5, Air, 4.6, 4.7, INTELLECT-3) and Qwen3-MoE: pre-norm layers,
// grouped-query attention with rotary embedding in half-split pairing and optional norms of queries
// and keys; the first layers dense, then routed experts (sigmoid with correction bias, or softmax)
// plus a shared expert. Formulas: docs/models.md. SPDX-License-Identifier: MIT
#include "core/model/model.h"

namespace glm {
namespace {

struct Glm4MoeLayer {
  Tensor input_norm;
  Attention attention;
  Tensor mlp_norm;
  std::unique_ptr<Mlp> mlp;  // one of the two
  std::unique_ptr<Moe> moe;
};

class Glm4Moe final : public Model {
 public:
  Glm4Moe(const ModelParts& parts, const ModelOptions& options) : Model(parts, options) {
    for (int64_t i = 0; i < n_local_layers(); ++i) {
      const std::string p = layer_prefix(i);
      const bool moe = parts.config.moe_layer(global_layer(i));
      layers_.push_back(
          {weights_.vector(p + "input_norm"),
           Attention(run_, weights_, p),
           weights_.vector(p + "mlp_norm"),
           moe ? nullptr
               : std::make_unique<Mlp>(run_, weights_, p + "mlp.", parts.config.intermediate),
           moe ? std::make_unique<Moe>(run_, weights_, p, *exchange_) : nullptr});
    }
  }

 private:
  void forward_layer(int64_t i, Tensor x, const Batch& batch) override {
    ArenaScope scope(arena_);
    Glm4MoeLayer& layer = layers_[static_cast<size_t>(i)];
    const Tensor n = take(x.rows(), x.cols());
    const Tensor y = take(x.rows(), x.cols());

    run_.ops.rms_norm(n, x, layer.input_norm, run_.config.norm_eps);
    layer.attention.forward(y, n, cache_->layer(i), batch.rows(), rope_);
    run_.ops.add(x, y);

    run_.ops.rms_norm(n, x, layer.mlp_norm, run_.config.norm_eps);
    layer.moe ? layer.moe->forward(y, n) : layer.mlp->forward(y, n);
    run_.ops.add(x, y);
  }

  std::vector<Glm4MoeLayer> layers_;
};

}  // namespace

std::unique_ptr<Model> make_glm4_moe(const ModelParts& parts, const ModelOptions& options) {
  return std::make_unique<Glm4Moe>(parts, options);
}

}  // namespace glm
