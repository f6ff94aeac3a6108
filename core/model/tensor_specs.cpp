// The one table of tensors: rows per family. SPDX-License-Identifier: MIT
#include "core/model/tensor_specs.h"

#include <utility>

namespace glm {
namespace {

using Sources = std::vector<SourcePart>;

// Where one decoder layer lies: in the model and in the checkpoint.
struct LayerPlace {
  int64_t layer = 0;
  std::string name;    // "layers.3." or "mtp.layer."
  std::string source;  // "model.layers.3."
  bool moe = false;
  bool mtp = false;
};

class Table {
 public:
  explicit Table(const ModelConfig& config) : c_(config) {}

  std::vector<TensorSpec> build(bool with_mtp) {
    const bool chatglm = c_.family == Family::kChatGlm;
    matrix("embedding",
           {c_.vocab, c_.hidden},
           Split::kVocab,
           Kind::kEmbedding,
           {whole(chatglm ? "transformer.embedding.word_embeddings.weight"
                          : "model.embed_tokens.weight",
                  c_.vocab)})
        .role = Role::kEmbedding;
    const std::string source = chatglm ? "transformer.encoder.layers." : "model.layers.";
    for (int64_t i = 0; i < c_.n_layers; ++i)
      decoder_layer({i,
                     fmt::format("layers.{}.", i),
                     fmt::format("{}{}.", source, i),
                     c_.moe_layer(i),
                     false});
    place_ = LayerPlace{.layer = -1, .name = "", .source = ""};
    vector("final_norm",
           c_.hidden,
           Kind::kNorm,
           chatglm ? "transformer.encoder.final_layernorm.weight" : "model.norm.weight");
    if (!c_.tied)
      matrix("head",
             {c_.vocab, c_.hidden},
             Split::kVocab,
             Kind::kHead,
             {whole(chatglm ? "transformer.output_layer.weight" : "lm_head.weight", c_.vocab)})
          .role = Role::kHead;
    if (with_mtp) mtp_layer();
    return std::move(specs_);
  }

 private:
  static SourcePart whole(std::string name, int64_t rows, int64_t matrix = 0) {
    return {std::move(name), matrix, 0, rows};
  }

  TensorSpec& matrix(
      const std::string& name, std::vector<int64_t> dims, Split split, Kind kind, Sources sources) {
    TensorSpec spec;
    spec.name = place_.name + name;
    spec.dims = std::move(dims);
    spec.role = Role::kMatrix;
    spec.split = split;
    spec.kind = place_.mtp ? Kind::kMtp : kind;
    spec.layer = place_.layer;
    spec.sources = std::move(sources);
    return specs_.emplace_back(std::move(spec));
  }

  // `source` is the full name of the tensor in the checkpoint.
  TensorSpec& vector(const std::string& name, int64_t n, Kind kind, const std::string& source) {
    TensorSpec& spec = matrix(name, {n}, Split::kNone, kind, {whole(source, n)});
    spec.role = Role::kVector;
    return spec;
  }

  void decoder_layer(LayerPlace place) {
    place_ = std::move(place);
    vector("input_norm", c_.hidden, Kind::kNorm, place_.source + "input_layernorm.weight");
    attention();
    if (c_.sandwich_norms)
      vector("attention.out_norm",
             c_.hidden,
             Kind::kNorm,
             place_.source + "post_self_attn_layernorm.weight");
    vector("mlp_norm", c_.hidden, Kind::kNorm, place_.source + "post_attention_layernorm.weight");
    if (place_.moe)
      moe();
    else
      dense();
    if (c_.sandwich_norms)
      vector("mlp.out_norm", c_.hidden, Kind::kNorm, place_.source + "post_mlp_layernorm.weight");
  }

  Sources qkv_sources(const std::string& suffix) const {
    const int64_t kv = int64_t{c_.n_kv_heads} * c_.head_dim;
    if (c_.family == Family::kChatGlm)
      return {whole(place_.source + "self_attention.query_key_value" + suffix, c_.qkv_width())};
    const std::string base = place_.source + "self_attn.";
    return {whole(base + "q_proj" + suffix, c_.attention_width()),
            whole(base + "k_proj" + suffix, kv),
            whole(base + "v_proj" + suffix, kv)};
  }

  void attention() {
    matrix("attention.qkv",
           {c_.qkv_width(), c_.hidden},
           Split::kQkv,
           Kind::kAttention,
           qkv_sources(".weight"));
    if (c_.qkv_bias) {
      TensorSpec& bias = matrix("attention.qkv_bias",
                                {c_.qkv_width()},
                                Split::kQkv,
                                Kind::kAttention,
                                qkv_sources(".bias"));
      bias.role = Role::kVector;
    }
    if (c_.qk_norm) {
      vector(
          "attention.q_norm", c_.head_dim, Kind::kNorm, place_.source + "self_attn.q_norm.weight");
      vector(
          "attention.k_norm", c_.head_dim, Kind::kNorm, place_.source + "self_attn.k_norm.weight");
    }
    const char* out =
        c_.family == Family::kChatGlm ? "self_attention.dense.weight" : "self_attn.o_proj.weight";
    matrix("attention.out",
           {c_.hidden, c_.attention_width()},
           Split::kHeadCols,
           Kind::kAttention,
           {whole(place_.source + out, c_.hidden)});
  }

  // A gated feed-forward block: `name`gate_up and `name`down.
  void ffn(const std::string& name, int64_t inner, Kind kind, Sources gate_up, Sources down) {
    matrix(name + "gate_up", {2 * inner, c_.hidden}, Split::kGateUp, kind, std::move(gate_up))
        .gated = true;
    matrix(name + "down", {c_.hidden, inner}, Split::kDown, kind, std::move(down));
  }

  void dense() {
    const std::string base = place_.source + "mlp.";
    const int64_t inner = c_.intermediate;
    if (c_.family == Family::kChatGlm) {
      ffn("mlp.",
          inner,
          Kind::kDense,
          {whole(base + "dense_h_to_4h.weight", 2 * inner)},
          {whole(base + "dense_4h_to_h.weight", c_.hidden)});
    } else if (c_.family == Family::kGlm || c_.family == Family::kGlm4) {
      ffn("mlp.",
          inner,
          Kind::kDense,
          {whole(base + "gate_up_proj.weight", 2 * inner)},
          {whole(base + "down_proj.weight", c_.hidden)});
    } else {
      separate_ffn("mlp.", base, inner, Kind::kDense);
    }
  }

  void separate_ffn(const std::string& name, const std::string& base, int64_t inner, Kind kind) {
    ffn(name,
        inner,
        kind,
        {whole(base + "gate_proj.weight", inner), whole(base + "up_proj.weight", inner)},
        {whole(base + "down_proj.weight", c_.hidden)});
  }

  void moe() {
    const int64_t n = c_.router.n_experts;
    const int64_t inner = c_.moe_intermediate;
    const std::string base = place_.source + "mlp.";
    matrix("router", {n, c_.hidden}, Split::kNone, Kind::kRouter, {whole(base + "gate.weight", n)})
        .role = Role::kRouter;
    if (c_.router_bias)
      vector("router_bias", n, Kind::kRouter, base + "gate.e_score_correction_bias");
    Sources gate_up;
    Sources down;
    for (int64_t e = 0; e < n; ++e) {
      const std::string expert = fmt::format("{}experts.{}.", base, e);
      gate_up.push_back(whole(expert + "gate_proj.weight", inner, e));
      gate_up.push_back(whole(expert + "up_proj.weight", inner, e));
      down.push_back(whole(expert + "down_proj.weight", c_.hidden, e));
    }
    TensorSpec& in = matrix("experts.gate_up",
                            {n, 2 * inner, c_.hidden},
                            Split::kGateUp,
                            Kind::kExperts,
                            std::move(gate_up));
    in.gated = true;
    in.experts = true;
    matrix("experts.down", {n, c_.hidden, inner}, Split::kDown, Kind::kExperts, std::move(down))
        .experts = true;
    if (c_.shared_intermediate > 0)
      separate_ffn("shared.", base + "shared_experts.", c_.shared_intermediate, Kind::kShared);
  }

  void mtp_layer() {
    const std::string source = fmt::format("model.layers.{}.", c_.n_layers);
    decoder_layer({c_.n_layers, "mtp.layer.", source, true, true});
    place_.name = "mtp.";
    vector("embedding_norm", c_.hidden, Kind::kMtp, source + "enorm.weight");
    vector("hidden_norm", c_.hidden, Kind::kMtp, source + "hnorm.weight");
    matrix("projection",
           {c_.hidden, 2 * c_.hidden},
           Split::kNone,
           Kind::kMtp,
           {whole(source + "eh_proj.weight", c_.hidden)});
    vector("final_norm", c_.hidden, Kind::kMtp, source + "shared_head.norm.weight");
    TensorSpec& head = matrix("head",
                              {c_.vocab, c_.hidden},
                              Split::kVocab,
                              Kind::kMtp,
                              {whole(source + "shared_head.head.weight", c_.vocab)});
    head.role = Role::kHead;
    head.optional = true;
    TensorSpec& embedding = matrix("embedding",
                                   {c_.vocab, c_.hidden},
                                   Split::kVocab,
                                   Kind::kMtp,
                                   {whole(source + "embed_tokens.weight", c_.vocab)});
    embedding.role = Role::kEmbedding;
    embedding.optional = true;
  }

  const ModelConfig& c_;
  LayerPlace place_{.layer = -1, .name = "", .source = ""};
  std::vector<TensorSpec> specs_;
};

DType chosen_dtype(const TensorSpec& spec, const ModelConfig& config, const DTypeChoice& choice) {
  switch (spec.role) {
    case Role::kEmbedding:
      // A tied matrix is read whole for every token as the head; as the embedding only one row is.
      return config.tied ? choice.head : choice.embedding;
    case Role::kHead:
      return choice.head;
    case Role::kMatrix:
      return choice.body;
    case Role::kVector:
    case Role::kRouter:
      break;
  }
  return DType::kF32;
}

}  // namespace

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kEmbedding:
      return "embedding";
    case Kind::kHead:
      return "head";
    case Kind::kAttention:
      return "attention";
    case Kind::kDense:
      return "dense";
    case Kind::kExperts:
      return "experts";
    case Kind::kShared:
      return "shared";
    case Kind::kRouter:
      return "router";
    case Kind::kNorm:
      return "norm";
    case Kind::kMtp:
      return "mtp";
  }
  return "unknown";
}

std::vector<TensorSpec> tensor_specs(const ModelConfig& config, bool with_mtp) {
  GLM_CHECK(!with_mtp || config.family == Family::kGlm4Moe, "only glm4_moe has an MTP layer");
  return Table(config).build(with_mtp);
}

DTypeChoice default_dtypes(DType body) {
  const DType ends = body == DType::kQ40 ? DType::kQ80 : body;
  return {body, ends, ends};
}

StoredType stored_type(const TensorSpec& spec,
                       const ModelConfig& config,
                       const DTypeChoice& choice) {
  const DType dtype = chosen_dtype(spec, config, choice);
  if (!is_quantized(dtype)) return {dtype, Packing::kRows};
  if (spec.cols() % kQuantBlock != 0) return {DType::kF16, Packing::kRows};
  // Borders between query, key and value heads and between gate and up rows must fall on tiles too.
  const int64_t unit = spec.split == Split::kQkv ? config.head_dim
                       : spec.gated              ? spec.rows() / 2
                                                 : spec.rows();
  return {dtype, unit % kTileRows == 0 ? Packing::kTile16 : Packing::kRows};
}

int64_t stored_bytes(const TensorSpec& spec, StoredType type) {
  return spec.n_matrices() * (value_bytes(type.dtype, spec.rows(), spec.cols()) +
                              scale_bytes(type.dtype, spec.rows(), spec.cols()));
}

}  // namespace glm
