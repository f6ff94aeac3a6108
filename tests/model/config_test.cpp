// config.json of every family in both dialects; everything out of range is refused by key.
// SPDX-License-Identifier: MIT
#include "core/model/config.h"

#include <cmath>
#include <numbers>

#include "tests/model/model_samples.h"

namespace glm {
namespace {

TEST(Config, EveryGoldenConfig) {
  for (const std::string& name : golden_names()) {
    const ModelConfig config = parsed(golden_config(name));
    EXPECT_EQ(config.hidden, 64) << name;
    EXPECT_EQ(config.head_dim, 16) << name;
    EXPECT_EQ(config.vocab, 320) << name;
    EXPECT_EQ(config.max_positions, 512) << name;
    EXPECT_EQ(config.eos_ids, (std::vector<int32_t>{1, 2})) << name;
    EXPECT_EQ(static_cast<int64_t>(config.moe_layers.size()), config.n_layers) << name;
  }
}

TEST(Config, FamiliesDifferWhereTheyShould) {
  const ModelConfig glm = parsed(golden_config("glm"));
  EXPECT_EQ(glm.family, Family::kGlm);
  EXPECT_TRUE(glm.qkv_bias);
  EXPECT_EQ(glm.rope.pairing, RopePairing::kInterleaved);
  EXPECT_EQ(glm.rope.rotary_dim, 8);
  EXPECT_DOUBLE_EQ(glm.rope.theta, 5e6);
  const ModelConfig chatglm = parsed(golden_config("chatglm"));
  EXPECT_DOUBLE_EQ(chatglm.rope.theta, 5e6);  // 10000 * rope_ratio
  EXPECT_EQ(chatglm.rope.rotary_dim, 8);
  EXPECT_FLOAT_EQ(chatglm.norm_eps, 1.5625e-07f);
  EXPECT_EQ(chatglm.n_kv_heads, 2);
  const ModelConfig glm4 = parsed(golden_config("glm4"));
  EXPECT_TRUE(glm4.sandwich_norms);
  EXPECT_FALSE(glm4.qkv_bias);
  const ModelConfig air = parsed(golden_config("glm4_moe_air"));
  EXPECT_EQ(air.rope.pairing, RopePairing::kHalfSplit);
  EXPECT_EQ(air.router.kind, RouterKind::kSigmoid);
  EXPECT_TRUE(air.router_bias);
  EXPECT_FALSE(air.qk_norm);
  EXPECT_EQ(air.moe_layers, (std::vector<bool>{false, true, true}));
  EXPECT_EQ(air.shared_intermediate, 32);
  const ModelConfig large = parsed(golden_config("glm4_moe_355b"));
  EXPECT_TRUE(large.qk_norm);
  EXPECT_FLOAT_EQ(large.router.scale, 2.5f);
  EXPECT_EQ(large.moe_layers, (std::vector<bool>{false, false, true, true}));
  const ModelConfig qwen = parsed(golden_config("qwen3_moe"));
  EXPECT_EQ(qwen.router.kind, RouterKind::kSoftmax);
  EXPECT_FALSE(qwen.router_bias);
  EXPECT_TRUE(qwen.qk_norm);
  EXPECT_EQ(qwen.shared_intermediate, 0);
  EXPECT_EQ(qwen.rope.rotary_dim, 16);
}

TEST(Config, BothDialectsSayTheSame) {
  Json old_keys = golden_config("glm4_moe_air");
  Json new_keys = old_keys;
  for (const char* key : {"rope_theta", "partial_rotary_factor", "rope_scaling"})
    new_keys.erase(key);
  new_keys["rope_parameters"] = {
      {"rope_type", "default"}, {"rope_theta", 1000000}, {"partial_rotary_factor", 0.5}};
  const ModelConfig a = parsed(old_keys);
  const ModelConfig b = parsed(new_keys);
  EXPECT_EQ(a.rope.inverse_frequencies(), b.rope.inverse_frequencies());
  // rope_parameters wins over what an older writer left beside it.
  new_keys["rope_theta"] = 77;
  EXPECT_DOUBLE_EQ(parsed(new_keys).rope.theta, 1e6);
}

TEST(Config, DefaultsOfAbsentKeys) {
  Json json = golden_config("glm4");
  for (const char* key : {"rope_theta", "partial_rotary_factor", "rope_scaling", "rms_norm_eps"})
    json.erase(key);
  const ModelConfig glm4 = parsed(json);
  EXPECT_DOUBLE_EQ(glm4.rope.theta, 10000.0);
  EXPECT_EQ(glm4.rope.rotary_dim, 8);
  EXPECT_FLOAT_EQ(glm4.norm_eps, 1e-5f);
  Json llama = golden_config("llama");
  llama.erase("head_dim");
  llama.erase("num_key_value_heads");
  EXPECT_EQ(parsed(llama).head_dim, 16);
  EXPECT_EQ(parsed(llama).n_kv_heads, 4);
  EXPECT_EQ(parsed(llama).rope.rotary_dim, 16);
}

TEST(Config, SparseLayersOfQwen) {
  Json json = golden_config("qwen3_moe");
  json["num_hidden_layers"] = 6;
  json["decoder_sparse_step"] = 2;
  json["mlp_only_layers"] = {3};
  json["num_experts"] = json["num_local_experts"];
  json.erase("num_local_experts");
  EXPECT_EQ(parsed(json).moe_layers, (std::vector<bool>{false, true, false, false, false, true}));
}

TEST(Config, FrequenciesOfLlama3) {
  Json json = golden_config("llama");
  json["head_dim"] = 64;
  json["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 8192}};
  const RopeConfig rope = parsed(json).rope;
  ASSERT_TRUE(rope.llama3);
  const std::vector<float> scaled = rope.inverse_frequencies();
  ASSERT_EQ(scaled.size(), 32u);
  int kept = 0, blended = 0, stretched = 0;
  for (int i = 0; i < 32; ++i) {
    const double plain = std::pow(500000.0, -2.0 * i / 64.0);
    const double wave = 2.0 * std::numbers::pi / plain;
    double expected = plain;
    if (wave > 8192.0 / 1.0) {
      expected = plain / 8.0;
      ++stretched;
    } else if (wave < 8192.0 / 4.0) {
      ++kept;
    } else {
      const double s = (8192.0 / wave - 1.0) / 3.0;
      expected = plain * ((1.0 - s) / 8.0 + s);
      ++blended;
    }
    EXPECT_FLOAT_EQ(scaled[static_cast<size_t>(i)], static_cast<float>(expected)) << i;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(blended, 0);
  EXPECT_GT(stretched, 0);
}

// The golden vectors of a rotation start from these angles: theta 10000, 4 dimensions.
TEST(Config, FrequenciesUseTheRotaryDimensions) {
  RopeConfig rope;
  rope.rotary_dim = 4;
  EXPECT_EQ(rope.inverse_frequencies(), (std::vector<float>{1.0f, 0.01f}));
}

struct BadKey {
  const char* model;
  const char* key;
  const char* value;  // JSON; empty: the key is taken away
  const char* word;
};

const std::vector<BadKey> kBadKeys = {
    {"llama", "hidden_size", "", "hidden_size"},
    {"llama", "num_attention_heads", "", "num_attention_heads"},
    {"llama", "vocab_size", "", "vocab_size"},
    {"llama", "model_type", "", "model_type"},
    {"llama", "model_type", "\"mamba\"", "supported are glm4_moe"},
    {"llama", "architectures", "[\"LlamaForSequenceClassification\"]", "architectures"},
    {"glm4_moe_air", "num_experts_per_tok", "9", "num_experts_per_tok"},
    {"glm4_moe_air", "num_experts_per_tok", "0", "num_experts_per_tok"},
    {"glm4_moe_air", "n_group", "3", "n_group"},
    {"glm4_moe_air", "n_group", "8", "n_group"},
    {"glm4_moe_air", "topk_group", "2", "topk_group"},
    {"glm4_moe_air", "first_k_dense_replace", "4", "first_k_dense_replace"},
    {"glm4_moe_air", "scoring_func", "\"softmax\"", "scoring_func"},
    {"glm4_moe_air", "n_routed_experts", "70000", "n_routed_experts"},
    {"glm4_moe_air", "routed_scaling_factor", "0", "routed_scaling_factor"},
    {"qwen3_moe", "mlp_only_layers", "[3]", "mlp_only_layers"},
    {"qwen3_moe", "mlp_only_layers", "[-1]", "mlp_only_layers"},
    {"qwen3_moe", "mlp_only_layers", "[\"1\"]", "mlp_only_layers"},
    {"qwen3_moe", "decoder_sparse_step", "0", "decoder_sparse_step"},
    {"llama", "num_attention_heads", "0", "num_attention_heads"},
    {"llama", "num_key_value_heads", "0", "num_key_value_heads"},
    {"llama", "num_key_value_heads", "3", "key-value heads"},
    {"llama", "hidden_size", "2147483648", "hidden_size"},
    {"llama", "num_hidden_layers", "-1", "num_hidden_layers"},
    {"llama", "num_hidden_layers", "10001", "num_hidden_layers"},
    {"llama", "hidden_size", "\"64\"", "hidden_size"},
    {"llama", "hidden_size", "true", "hidden_size"},
    {"llama", "hidden_size", "64.0", "hidden_size"},
    {"llama", "hidden_size", "1e9", "hidden_size"},
    {"llama", "rope_theta", "0", "rope_theta"},
    {"llama", "rope_theta", "-1", "rope_theta"},
    {"llama", "rope_theta", "\"inf\"", "rope_theta"},
    {"llama", "rope_theta", "1e300", "rope_theta"},
    {"llama", "rms_norm_eps", "-1e-5", "rms_norm_eps"},
    {"llama", "hidden_act", "\"gelu\"", "hidden_act"},
    {"llama", "attention_bias", "true", "attention_bias"},
    {"llama", "mlp_bias", "true", "mlp_bias"},
    {"qwen3", "use_sliding_window", "true", "use_sliding_window"},
    {"qwen3", "layer_types", "[\"sliding_attention\"]", "layer_types"},
    {"llama", "rope_scaling", "{\"type\": \"yarn\", \"factor\": 4}", "default, llama3"},
    {"llama", "rope_scaling", "{\"rope_type\": \"llama3\"}", "factor"},
    {"llama", "rope_scaling", "[1]", "rope_scaling"},
    {"llama", "rope_parameters", "{\"full\": {\"rope_theta\": 1}}", "rope_parameters"},
    {"glm4", "partial_rotary_factor", "0.3125", "partial_rotary_factor"},
    {"glm4", "partial_rotary_factor", "1.5", "partial_rotary_factor"},
    {"glm4", "eos_token_id", "320", "eos_token_id"},
    {"glm4", "eos_token_id", "[1, -1]", "eos_token_id"},
    {"glm4", "eos_token_id", "[1, \"2\"]", "eos_token_id"},
    {"chatglm", "rmsnorm", "false", "rmsnorm"},
    {"chatglm", "post_layer_norm", "false", "post_layer_norm"},
    {"chatglm", "apply_residual_connection_post_layernorm", "true", "apply_residual"},
    {"chatglm", "add_bias_linear", "true", "add_bias_linear"},
    {"chatglm", "multi_query_attention", "false", "multi_query_attention"},
    {"chatglm", "original_rope", "false", "original_rope"},
    {"chatglm", "rope_ratio", "0", "rope_ratio"},
};

TEST(Config, BadValuesAreRefusedByKey) {
  for (const BadKey& bad : kBadKeys) {
    Json json = golden_config(bad.model);
    if (*bad.value == '\0')
      json.erase(bad.key);
    else
      json[bad.key] = Json::parse(bad.value);
    SCOPED_TRACE(std::string(bad.key) + " = " + bad.value);
    expect_error([&] { parsed(json); }, ExitCode::kModelFile, {"config.json", bad.word});
  }
}

TEST(Config, SizesThatOverflowTogether) {
  Json json = golden_config("glm4_moe_air");
  json["num_hidden_layers"] = 10000;
  json["n_routed_experts"] = 65536;
  expect_error([&] { parsed(json); }, ExitCode::kModelFile, {"experts in all"});
  json["n_routed_experts"] = 8;
  json["hidden_size"] = 1 << 20;
  json["intermediate_size"] = 1 << 24;
  expect_error([&] { parsed(json); }, ExitCode::kModelFile, {"parameters"});
}

TEST(Config, ManyEndTokens) {
  Json json = golden_config("glm4");
  json["eos_token_id"] = Json::array();
  for (int i = 0; i < 1'000; ++i) json["eos_token_id"].push_back(1);
  expect_error([&] { parsed(json); }, ExitCode::kModelFile, {"eos_token_id", "64"});
}

TEST(Config, NotAnObject) {
  for (const char* text : {"", "[]", "3", "{", "{\"a\": NaN}"})
    expect_error([&] { parse_config(text, "c.json"); }, ExitCode::kModelFile, {"c.json"});
  expect_error([] { parse_config(R"({"model_type": "llama", "model_type": "glm4"})", "c.json"); },
               ExitCode::kModelFile,
               {"c.json", "model_type"});
}

TEST(GenerationConfig, ValuesAndFallback) {
  const ModelConfig config = parsed(golden_config("glm4"));
  const GenerationDefaults none = parse_generation_config("", "g", config);
  EXPECT_EQ(none.eos_ids, config.eos_ids);
  EXPECT_FALSE(none.temperature.has_value());
  const GenerationDefaults some = parse_generation_config(
      R"({"eos_token_id": 7, "do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 40})",
      "g",
      config);
  EXPECT_EQ(some.eos_ids, std::vector<int32_t>{7});
  EXPECT_EQ(some.do_sample, true);
  EXPECT_FLOAT_EQ(*some.temperature, 0.6f);
  EXPECT_FLOAT_EQ(*some.top_p, 0.95f);
  EXPECT_EQ(some.top_k, 40);
  for (const char* bad : {R"({"temperature": -1})",
                          R"({"top_p": 2})",
                          R"({"top_k": -5})",
                          R"({"eos_token_id": 320})",
                          R"({"do_sample": 1})",
                          "[]"})
    expect_error(
        [&] { parse_generation_config(bad, "g.json", config); }, ExitCode::kModelFile, {"g.json"});
}

}  // namespace
}  // namespace glm
