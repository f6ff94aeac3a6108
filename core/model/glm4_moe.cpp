// GLM-4.5 family (GLM-4.5, Air, 4.6, 4.7, INTELLECT-3) and Qwen3-MoE: pre-norm layers,
// grouped-query attention with rotary embedding in half-split pairing and optional norms of queries
// and keys; the first layers dense, then routed experts (sigmoid with correction bias, or softmax)
// plus a shared expert; behind them the MTP layer, where it is loaded. Formulas: docs/models.md.
// SPDX-License-Identifier: MIT
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

// What stands around the layer that guesses the token after the next one.
struct Glm4MoeMtp {
  Tensor embedding_norm;
  Tensor hidden_norm;
  Weight projection;  // [hidden, 2 hidden]
  Glm4MoeLayer layer;
  Tensor final_norm;
};

class Glm4Moe final : public Model {
 public:
  Glm4Moe(const ModelParts& parts, const ModelOptions& options) : Model(parts, options) {
    for (int64_t i = 0; i < n_local_layers(); ++i)
      layers_.push_back(layer(layer_prefix(i), parts.config.moe_layer(global_layer(i))));
    if (parts.placement.holds_mtp())
      mtp_ = std::make_unique<Glm4MoeMtp>(Glm4MoeMtp{weights_.vector("mtp.embedding_norm"),
                                                     weights_.vector("mtp.hidden_norm"),
                                                     weights_.matrix("mtp.projection"),
                                                     layer("mtp.layer.", true),
                                                     weights_.vector("mtp.final_norm")});
  }

 private:
  Glm4MoeLayer layer(const std::string& p, bool moe) {
    return {
        weights_.vector(p + "input_norm"),
        Attention(run_, weights_, p),
        weights_.vector(p + "mlp_norm"),
        moe ? nullptr : std::make_unique<Mlp>(run_, weights_, p + "mlp.", run_.config.intermediate),
        moe ? std::make_unique<Moe>(run_, weights_, p, *exchange_) : nullptr};
  }

  void forward_layer(int64_t i, Tensor x, const Batch& batch) override {
    forward(layers_[static_cast<size_t>(i)], x, cache_->layer(i), batch);
  }

  void forward(Glm4MoeLayer& layer, Tensor x, const KvLayer& cache, const Batch& batch) {
    ArenaScope scope(arena_);
    const Tensor n = take(x.rows(), x.cols());
    const Tensor y = take(x.rows(), x.cols());

    run_.ops.rms_norm(n, x, layer.input_norm, run_.config.norm_eps);
    layer.attention.forward(y, n, cache, batch.rows(), rope_);
    run_.ops.add_rms_norm(n, x, y, layer.mlp_norm, run_.config.norm_eps);
    layer.moe ? layer.moe->forward(y, n) : layer.mlp->forward(y, n);
    run_.ops.add(x, y);
  }

  // The embedding half comes first. The cache of the layer stands behind those of the stage's own.
  void forward_mtp(Tensor x, Tensor hidden, const Batch& batch) override {
    ArenaScope scope(arena_);
    const int64_t rows = x.rows();
    const int64_t width = x.cols();
    const Tensor halves = take(2 * rows, width);
    const Tensor joined = take(rows, 2 * width);

    run_.ops.rms_norm(halves.slice(0, rows), x, mtp_->embedding_norm, run_.config.norm_eps);
    run_.ops.rms_norm(halves.slice(rows, rows), hidden, mtp_->hidden_norm, run_.config.norm_eps);
    run_.ops.concat_columns(joined, halves.reshaped({2 * rows * width}), {width, width});
    run_.ops.linear(x, joined, mtp_->projection);

    forward(mtp_->layer, x, cache_->layer(n_local_layers()), batch);
    run_.ops.rms_norm(x, x, mtp_->final_norm, run_.config.norm_eps);
  }

  std::vector<Glm4MoeLayer> layers_;
  std::unique_ptr<Glm4MoeMtp> mtp_;
};

}  // namespace

std::unique_ptr<Model> make_glm4_moe(const ModelParts& parts, const ModelOptions& options) {
  return std::make_unique<Glm4Moe>(parts, options);
}

}  // namespace glm
