// Hyper-parameters of a model, read from config.json of any supported family in both dialects
// (rope_* at top level, or rope_parameters), and checked. Field comments give the key of
// config.json. Facts: docs/models.md. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "kernels/types.h"

namespace glm {

enum class Family : uint8_t { kGlm4Moe, kGlm4, kGlm, kChatGlm, kLlama, kQwen3, kQwen3Moe };
std::string_view family_name(Family family);  // model_type: "glm4_moe", ...

// Rotary embedding. inverse_frequencies() is all that the forward pass needs.
struct RopeConfig {
  double theta = 10000.0;  // rope_theta
  int rotary_dim = 0;      // head_dim * partial_rotary_factor, even
  RopePairing pairing = RopePairing::kHalfSplit;
  bool llama3 = false;  // rope_type "llama3" with the four numbers below; else "default"
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_positions = 8192;  // original_max_position_embeddings

  std::vector<float> inverse_frequencies() const;  // rotary_dim / 2 values
};

struct ModelConfig {
  Family family = Family::kGlm4Moe;
  int64_t hidden = 0;           // hidden_size
  int64_t n_layers = 0;         // num_hidden_layers, without MTP
  int n_heads = 0;              // num_attention_heads
  int n_kv_heads = 0;           // num_key_value_heads
  int head_dim = 0;             // head_dim, else hidden / n_heads
  int64_t intermediate = 0;     // intermediate_size, of dense layers
  int64_t vocab = 0;            // vocab_size (rows of the embedding)
  int64_t max_positions = 0;    // max_position_embeddings
  float norm_eps = 1e-5f;       // rms_norm_eps
  bool qkv_bias = false;        // attention_bias
  bool qk_norm = false;         // use_qk_norm; always for qwen3
  bool sandwich_norms = false;  // glm4: norms on the outputs of attention and MLP
  bool tied = false;            // tie_word_embeddings
  RopeConfig rope;

  RouterConfig router;              // n_experts 0: a dense model
  bool router_bias = false;         // e_score_correction_bias exists
  int64_t moe_intermediate = 0;     // moe_intermediate_size
  int64_t shared_intermediate = 0;  // n_shared_experts * moe_intermediate_size, 0: none
  std::vector<bool> moe_layers;     // per layer

  bool announces_mtp =
      false;  // num_nextn_predict_layers > 0; whether it exists is for the tensors to say
  std::vector<int32_t> eos_ids;  // eos_token_id, one or many

  bool is_moe() const { return router.n_experts > 0; }
  bool moe_layer(int64_t layer) const { return moe_layers[static_cast<size_t>(layer)]; }
  int64_t attention_width() const { return int64_t{n_heads} * head_dim; }
  int64_t qkv_width() const { return int64_t{n_heads + 2 * n_kv_heads} * head_dim; }
};

// Throws Error(kModelFile) "source: key: ..." for what is missing, of the wrong type, out of range,
// contradictory or not supported (families, rope types, activation functions, flags that change the
// formulas).
ModelConfig parse_config(std::string_view json, const std::string& source);

// What generation_config.json says (falling back to config.json for the end tokens); absent values
// are not set.
struct GenerationDefaults {
  std::vector<int32_t> eos_ids;
  std::optional<bool> do_sample;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
};
GenerationDefaults parse_generation_config(std::string_view json,
                                           const std::string& source,
                                           const ModelConfig& config);

}  // namespace glm
