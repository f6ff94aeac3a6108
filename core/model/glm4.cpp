// Dense GLM: glm-4-9b-chat (glm and the older chatglm layout, two norms per layer) and GLM-4-0414
// (glm4: two more norms, on the outputs of attention and MLP before they are added). Rotary
// embedding of half of each head, neighbours paired. SPDX-License-Identifier: MIT
#include "core/model/model.h"

namespace glm {
namespace {

struct Glm4Layer {
  Tensor input_norm;
  Attention attention;
  Tensor attention_out_norm;  // glm4 only
  Tensor mlp_norm;
  Mlp mlp;
  Tensor mlp_out_norm;  // glm4 only
};

class Glm4 final : public Model {
 public:
  Glm4(const ModelParts& parts, const ModelOptions& options) : Model(parts, options) {
    for (int64_t i = 0; i < n_local_layers(); ++i) {
      const std::string p = layer_prefix(i);
      layers_.push_back({weights_.vector(p + "input_norm"),
                         Attention(run_, weights_, p),
                         weights_.vector(p + "attention.out_norm"),
                         weights_.vector(p + "mlp_norm"),
                         Mlp(run_, weights_, p + "mlp.", parts.config.intermediate),
                         weights_.vector(p + "mlp.out_norm")});
    }
  }

 private:
  void forward_layer(int64_t i, Tensor x, const Batch& batch) override {
    ArenaScope scope(arena_);
    Glm4Layer& layer = layers_[static_cast<size_t>(i)];
    const float eps = run_.config.norm_eps;
    const Tensor n = take(x.rows(), x.cols());
    const Tensor y = take(x.rows(), x.cols());

    run_.ops.rms_norm(n, x, layer.input_norm, eps);
    layer.attention.forward(y, n, cache_->layer(i), batch.rows(), rope_);
    if (run_.config.sandwich_norms) run_.ops.rms_norm(y, y, layer.attention_out_norm, eps);
    run_.ops.add_rms_norm(n, x, y, layer.mlp_norm, eps);
    layer.mlp.forward(y, n);
    if (run_.config.sandwich_norms) run_.ops.rms_norm(y, y, layer.mlp_out_norm, eps);
    run_.ops.add(x, y);
  }

  std::vector<Glm4Layer> layers_;
};

}  // namespace

std::unique_ptr<Model> make_glm4(const ModelParts& parts, const ModelOptions& options) {
  return std::make_unique<Glm4>(parts, options);
}

}  // namespace glm
