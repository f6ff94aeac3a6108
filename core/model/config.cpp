// config.json of every supported family to ModelConfig. SPDX-License-Identifier: MIT
#include "core/model/config.h"

#include <algorithm>
#include <array>

#include "core/model/config_fields.h"

namespace glm {
namespace {

struct FamilyNames {
  Family family;
  std::string_view name;
  std::array<std::string_view, 2> architectures;
};

constexpr std::array kFamilies = {
    FamilyNames{Family::kGlm4Moe, "glm4_moe", {"Glm4MoeForCausalLM"}},
    FamilyNames{Family::kGlm4, "glm4", {"Glm4ForCausalLM"}},
    FamilyNames{Family::kGlm, "glm", {"GlmForCausalLM"}},
    FamilyNames{Family::kChatGlm, "chatglm", {"ChatGLMModel", "ChatGLMForConditionalGeneration"}},
    FamilyNames{Family::kLlama, "llama", {"LlamaForCausalLM"}},
    FamilyNames{Family::kQwen3, "qwen3", {"Qwen3ForCausalLM"}},
    FamilyNames{Family::kQwen3Moe, "qwen3_moe", {"Qwen3MoeForCausalLM"}},
};

std::string supported_families() {
  std::string list;
  for (const FamilyNames& family : kFamilies) {
    if (!list.empty()) list += ", ";
    list += family.name;
  }
  return list;
}

Family parse_family(const ConfigFields& fields) {
  const std::string type = fields.text("model_type");
  const auto* found = std::find_if(
      kFamilies.begin(), kFamilies.end(), [&](const FamilyNames& f) { return f.name == type; });
  if (found == kFamilies.end())
    fields.error(
        "model_type",
        fmt::format(
            "\"{}\" is not supported; supported are {}", escaped(type), supported_families()));
  if (!fields.has("architectures")) return found->family;
  const Json& list = fields["architectures"];
  if (!list.is_array() || list.empty() || !list[0].is_string())
    fields.error("architectures", "expected a list of names");
  const std::string& name = list[0].get_ref<const std::string&>();
  const auto& known = found->architectures;
  if (name.empty() || std::find(known.begin(), known.end(), name) == known.end())
    fields.error(
        "architectures",
        fmt::format(
            "\"{}\" is not supported with model_type {}, only {}", escaped(name), type, known[0]));
  return found->family;
}

int as_int(int64_t value) { return static_cast<int>(value); }

void parse_chatglm(const ConfigFields& fields, ModelConfig& config) {
  const char* layers = fields.has("num_layers") ? "num_layers" : "num_hidden_layers";
  config.n_layers = fields.integer(layers, 1, kMaxLayers);
  config.n_heads = as_int(fields.integer("num_attention_heads", 1, kMaxHeads));
  config.n_kv_heads = as_int(fields.integer("multi_query_group_num", 1, kMaxHeads));
  config.head_dim = as_int(fields.integer("kv_channels", 1, kMaxHeadDim));
  config.intermediate = fields.integer("ffn_hidden_size", 1, kMaxInner);
  const char* vocab = fields.has("padded_vocab_size") ? "padded_vocab_size" : "vocab_size";
  config.vocab = fields.integer(vocab, 1, kMaxVocab);
  config.max_positions = fields.integer("seq_length", 1, kMaxPositions);
  config.norm_eps = static_cast<float>(fields.number_or("layernorm_epsilon", 1e-5, 1e-12, 0.1));
  config.qkv_bias = fields.flag_or("add_qkv_bias", false);
  fields.require_flag("rmsnorm", true);
  fields.require_flag("post_layer_norm", true);
  fields.require_flag("apply_residual_connection_post_layernorm", false);
  fields.require_flag("add_bias_linear", false);
  fields.require_flag("multi_query_attention", true);
  fields.require_flag("original_rope", true);
}

// glm, glm4, glm4_moe, llama, qwen3, qwen3_moe.
void parse_common(const ConfigFields& fields, ModelConfig& config) {
  config.n_layers = fields.integer("num_hidden_layers", 1, kMaxLayers);
  config.n_heads = as_int(fields.integer("num_attention_heads", 1, kMaxHeads));
  config.n_kv_heads =
      as_int(fields.integer_or("num_key_value_heads", config.n_heads, 1, kMaxHeads));
  if (fields.has("head_dim")) {
    config.head_dim = as_int(fields.integer("head_dim", 1, kMaxHeadDim));
  } else if (config.hidden % config.n_heads == 0 && config.hidden / config.n_heads <= kMaxHeadDim) {
    config.head_dim = as_int(config.hidden / config.n_heads);
  } else {
    fields.error("head_dim",
                 fmt::format("is absent and hidden_size {} over {} heads gives none",
                             config.hidden,
                             config.n_heads));
  }
  config.intermediate = fields.integer("intermediate_size", 1, kMaxInner);
  config.vocab = fields.integer("vocab_size", 1, kMaxVocab);
  config.max_positions = fields.integer("max_position_embeddings", 1, kMaxPositions);
  config.norm_eps = static_cast<float>(fields.number_or("rms_norm_eps", 1e-5, 1e-12, 0.1));
  fields.require_text("hidden_act", "silu");

  const bool glm = config.family == Family::kGlm || config.family == Family::kGlm4 ||
                   config.family == Family::kGlm4Moe;
  if (glm) {
    config.qkv_bias = fields.flag_or("attention_bias", false);
  } else {
    // There the flag also gives the output projection a bias.
    fields.require_flag("attention_bias", false);
  }
  fields.require_flag("mlp_bias", false);
  fields.require_flag("use_sliding_window", false);
  if (fields.has("layer_types")) {
    for (const Json& type : fields["layer_types"])
      if (!type.is_string() || type.get_ref<const std::string&>() != "full_attention")
        fields.error("layer_types", "only \"full_attention\" is supported");
  }
  config.sandwich_norms = config.family == Family::kGlm4;
  config.qk_norm = config.family == Family::kQwen3 || config.family == Family::kQwen3Moe ||
                   (config.family == Family::kGlm4Moe && fields.flag_or("use_qk_norm", false));
}

void parse_glm4_moe(const ConfigFields& fields, ModelConfig& config) {
  RouterConfig& router = config.router;
  router.kind = RouterKind::kSigmoid;
  config.router_bias = true;
  const char* experts = fields.has("n_routed_experts") ? "n_routed_experts" : "num_local_experts";
  router.n_experts = as_int(fields.integer(experts, 1, kMaxExperts));
  router.n_group = as_int(fields.integer_or("n_group", 1, 1, router.n_experts));
  router.topk_group = as_int(fields.integer_or("topk_group", 1, 1, router.n_group));
  if (router.n_experts % router.n_group != 0)
    fields.error("n_group",
                 fmt::format("{} does not divide {} experts", router.n_group, router.n_experts));
  // A group is judged by the sum of its two best experts.
  if (router.n_group > 1 && router.n_experts / router.n_group < 2)
    fields.error("n_group", "groups of one expert are not supported");
  router.norm_topk = fields.flag_or("norm_topk_prob", true);
  router.scale = static_cast<float>(fields.number_or("routed_scaling_factor", 1.0, 1e-6, 1e6));
  fields.require_text("scoring_func", "sigmoid");
  fields.require_text("topk_method", "noaux_tc");
  const int64_t shared = fields.integer_or("n_shared_experts", 1, 0, 1024);
  config.shared_intermediate = shared * config.moe_intermediate;
  const int64_t dense = fields.integer_or("first_k_dense_replace", 1, 0, config.n_layers);
  config.moe_layers.assign(static_cast<size_t>(config.n_layers), true);
  std::fill_n(config.moe_layers.begin(), dense, false);
  const char* mtp =
      fields.has("num_nextn_predict_layers") ? "num_nextn_predict_layers" : "num_mtp_layers";
  config.announces_mtp = fields.integer_or(mtp, 0, 0, 64) > 0;
}

void parse_qwen3_moe(const ConfigFields& fields, ModelConfig& config) {
  RouterConfig& router = config.router;
  router.kind = RouterKind::kSoftmax;
  const char* experts = fields.has("num_experts") ? "num_experts" : "num_local_experts";
  router.n_experts = as_int(fields.integer(experts, 1, kMaxExperts));
  router.norm_topk = fields.flag_or("norm_topk_prob", false);
  const int64_t step = fields.integer_or("decoder_sparse_step", 1, 1, kMaxLayers);
  config.moe_layers.assign(static_cast<size_t>(config.n_layers), false);
  for (int64_t i = step - 1; i < config.n_layers; i += step)
    config.moe_layers[static_cast<size_t>(i)] = true;
  if (!fields.has("mlp_only_layers")) return;
  const Json& list = fields["mlp_only_layers"];
  if (!list.is_array() || list.size() > static_cast<size_t>(kMaxLayers))
    fields.error("mlp_only_layers", "expected a list of layers");
  for (const Json& entry : list) {
    if (!entry.is_number_integer() || entry.get<int64_t>() < 0 ||
        entry.get<int64_t>() >= config.n_layers)
      fields.error(
          "mlp_only_layers",
          fmt::format("{} is not a layer of 0..{}", escaped(entry.dump()), config.n_layers - 1));
    config.moe_layers[entry.get<size_t>()] = false;
  }
}

void parse_moe(const ConfigFields& fields, ModelConfig& config) {
  config.moe_intermediate = fields.integer("moe_intermediate_size", 1, kMaxInner);
  if (config.family == Family::kGlm4Moe)
    parse_glm4_moe(fields, config);
  else
    parse_qwen3_moe(fields, config);
  RouterConfig& router = config.router;
  const int candidates = router.n_experts / router.n_group * router.topk_group;
  router.top_k =
      as_int(fields.integer("num_experts_per_tok", 1, std::min<int64_t>(candidates, kMaxTopK)));
  if (config.n_layers * router.n_experts > kMaxExpertLayers)
    fields.error("num_hidden_layers",
                 fmt::format("{} layers of {} experts are more than {} experts in all",
                             config.n_layers,
                             router.n_experts,
                             kMaxExpertLayers));
}

// Everything that follows from the single values.
void check_whole(const ConfigFields& fields, const ModelConfig& config) {
  if (config.n_heads % config.n_kv_heads != 0)
    fields.error(
        "num_attention_heads",
        fmt::format(
            "{} is not a multiple of {} key-value heads", config.n_heads, config.n_kv_heads));
  if (config.attention_width() > kMaxInner)
    fields.error(
        "num_attention_heads",
        fmt::format(
            "{} heads of {} are wider than {}", config.n_heads, config.head_dim, kMaxInner));
  const auto n = [](int64_t value) { return static_cast<double>(value); };
  double expert_width = n(config.shared_intermediate);
  if (config.is_moe()) expert_width += n(config.router.n_experts) * n(config.moe_intermediate);
  const double layer = n(config.hidden) * (n(config.qkv_width()) + n(config.attention_width()) +
                                           3 * n(config.intermediate) + 3 * expert_width);
  const double all = n(config.n_layers + 1) * layer + 4 * n(config.vocab) * n(config.hidden);
  if (all > kMaxParameters)
    fields.error(
        "hidden_size",
        fmt::format(
            "the sizes give about {:.1e} parameters, more than {:.0e}", all, kMaxParameters));
}

}  // namespace

std::string_view family_name(Family family) {
  for (const FamilyNames& names : kFamilies)
    if (names.family == family) return names.name;
  return "unknown";
}

ModelConfig parse_config(std::string_view json, const std::string& source) {
  JsonLimits limits;
  limits.max_bytes = 16 << 20;
  limits.max_values = 1'000'000;
  const Json object = parse_json(json, source, ExitCode::kModelFile, limits);
  if (!object.is_object())
    fail(ExitCode::kModelFile, "{}: expected a JSON object", escaped(source));
  const ConfigFields fields(object, source);
  ModelConfig config;
  config.family = parse_family(fields);
  config.hidden = fields.integer("hidden_size", 1, kMaxWidth);
  if (config.family == Family::kChatGlm)
    parse_chatglm(fields, config);
  else
    parse_common(fields, config);
  config.tied = fields.flag_or("tie_word_embeddings", false);
  config.moe_layers.assign(static_cast<size_t>(config.n_layers), false);
  if (config.family == Family::kGlm4Moe || config.family == Family::kQwen3Moe)
    parse_moe(fields, config);
  config.rope = parse_rope(fields, config.family, config.head_dim);
  check_whole(fields, config);
  config.eos_ids = fields.token_ids("eos_token_id", config.vocab);
  return config;
}

GenerationDefaults parse_generation_config(std::string_view json,
                                           const std::string& source,
                                           const ModelConfig& config) {
  GenerationDefaults defaults;
  defaults.eos_ids = config.eos_ids;
  if (json.empty()) return defaults;
  JsonLimits limits;
  limits.max_bytes = 16 << 20;
  limits.max_values = 1'000'000;
  const Json object = parse_json(json, source, ExitCode::kModelFile, limits);
  if (!object.is_object())
    fail(ExitCode::kModelFile, "{}: expected a JSON object", escaped(source));
  const ConfigFields fields(object, source);
  if (fields.has("eos_token_id")) defaults.eos_ids = fields.token_ids("eos_token_id", config.vocab);
  const auto number = [&](std::string_view key, double max, std::optional<float>& out) {
    if (fields.has(key)) out = static_cast<float>(fields.number(key, 0.0, max));
  };
  if (fields.has("do_sample")) defaults.do_sample = fields.flag_or("do_sample", true);
  number("temperature", 100.0, defaults.temperature);
  number("top_p", 1.0, defaults.top_p);
  number("min_p", 1.0, defaults.min_p);
  number("repetition_penalty", 100.0, defaults.repetition_penalty);
  if (fields.has("top_k")) defaults.top_k = as_int(fields.integer("top_k", 0, kMaxVocab));
  return defaults;
}

}  // namespace glm
