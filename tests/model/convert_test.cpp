// Conversion of good checkpoints: numbers, packing, threads, memory bound, synthetic models.
// SPDX-License-Identifier: MIT
#include "core/model/convert.h"

#include <cmath>

#include "io/model_file.h"
#include "io/safetensors.h"
#include "kernels/quantize.h"
#include "tests/model/model_samples.h"

namespace glm {
namespace {

ConvertOptions options_of(DType body) {
  ConvertOptions options;
  options.dtypes = default_dtypes(body);
  options.threads = 2;
  return options;
}

// One tensor of a model file as f32 rows in stored order.
std::vector<float> stored_values(const ModelIndex& index, const std::string& name) {
  const TensorEntry* entry = index.find(name);
  if (entry == nullptr) {
    ADD_FAILURE() << name << " is not in the file";
    return {};
  }
  const bool vector = entry->dims.size() == 1;
  const int64_t cols = vector ? 1 : entry->dims.back();
  int64_t rows = 1;
  for (const int64_t dim : entry->dims) rows *= dim;
  rows /= cols;
  std::vector<char> values(static_cast<size_t>(entry->values_bytes));
  std::vector<char> scales(static_cast<size_t>(entry->scales_bytes));
  WeightReader reader(index, true);
  const WeightReader::Range all = {0, entry->values_bytes, values.data()};
  reader.read(*entry, WeightReader::Plane::kValues, {&all, 1});
  if (entry->scales_bytes > 0) {
    const WeightReader::Range every = {0, entry->scales_bytes, scales.data()};
    reader.read(*entry, WeightReader::Plane::kScales, {&every, 1});
  }
  std::vector<float> out(static_cast<size_t>(rows * cols));
  for (int64_t row = 0; row < rows; ++row)
    decode_row(values.data(),
               scales.data(),
               rows,
               cols,
               entry->dtype,
               entry->packing,
               row,
               out.data() + row * cols);
  return out;
}

// Source tensors one after the other.
std::vector<float> source_values(const Checkpoint& checkpoint,
                                 const std::vector<std::string>& names) {
  std::vector<float> out;
  for (const std::string& name : names) {
    const CheckpointTensor* tensor = checkpoint.find(name);
    if (tensor == nullptr) {
      ADD_FAILURE() << name << " is not in the checkpoint";
      continue;
    }
    int64_t count = 1;
    for (const int64_t dim : tensor->shape) count *= dim;
    const size_t at = out.size();
    out.resize(at + static_cast<size_t>(count));
    checkpoint.read_f32(*tensor, 0, count, out.data() + at);
  }
  return out;
}

TEST(Convert, EveryGoldenModelInEveryDType) {
  const TempFolder folder("convert_golden");
  for (const std::string& name : golden_names())
    for (const DType body : {DType::kF32, DType::kBF16, DType::kF16, DType::kQ80, DType::kQ40}) {
      const auto out = folder / "model.h5";
      const ConvertReport report = convert_checkpoint(golden_folder(name), out, options_of(body));
      const ModelIndex index = read_model_index(out);
      EXPECT_EQ(static_cast<int64_t>(index.entries.size()), report.tensors);
      EXPECT_EQ(index.architecture, golden_config(name)["model_type"].get<std::string>());
      EXPECT_EQ(index.texts.config, read_bytes(golden_folder(name) / "config.json"));
      int64_t bytes = 0;
      for (const TensorEntry& entry : index.entries)
        bytes += entry.values_bytes + entry.scales_bytes;
      EXPECT_EQ(bytes, report.bytes);
      EXPECT_FALSE(report.has_mtp);
      ASSERT_EQ(report.warnings.size(), 1u) << report.warnings.back();
      EXPECT_NE(report.warnings[0].find("tokenizer"), std::string::npos);
    }
}

TEST(Convert, TheTinyModelKeepsItsMtpLayerAndTexts) {
  const TempFolder folder("convert_tiny");
  const auto tiny = std::filesystem::path(GLM_TEST_DATA) / "tiny";
  const auto out = folder / "tiny.h5";
  const ConvertReport report = convert_checkpoint(tiny, out, options_of(DType::kQ40));
  EXPECT_TRUE(report.has_mtp);
  EXPECT_TRUE(report.warnings.empty());
  const ModelIndex index = read_model_index(out);
  EXPECT_NE(index.find("mtp.head"), nullptr);
  EXPECT_EQ(index.find("layers.1.router")->dtype, DType::kF32);
  EXPECT_EQ(index.find("head")->dtype, DType::kQ80);
  EXPECT_EQ(index.texts.chat_template, read_bytes(tiny / "chat_template.jinja"));
  EXPECT_EQ(index.texts.tokenizer, read_bytes(tiny / "tokenizer.json"));
}

TEST(Convert, TextsThatCannotBeUsedAreWarnedOf) {
  const TempFolder folder("convert_texts");
  const auto tiny = std::filesystem::path(GLM_TEST_DATA) / "tiny";
  SampleCheckpoint sample("glm");
  sample.write(folder / "in");
  const auto warning = [&] {
    const ConvertReport report =
        convert_checkpoint(folder / "in", folder / "out.h5", options_of(DType::kQ40));
    EXPECT_EQ(report.warnings.size(), 1u);
    return report.warnings.empty() ? "" : report.warnings[0];
  };
  write_bytes(folder / "in" / "tokenizer.json", "{}");
  EXPECT_NE(warning().find("tokenizer.json"), std::string::npos);
  write_bytes(folder / "in" / "tokenizer.json", read_bytes(tiny / "tokenizer.json"));
  write_bytes(folder / "in" / "chat_template.jinja", "text");
  EXPECT_NE(warning().find("the embedding only 320 rows"), std::string::npos);
}

TEST(Convert, TokenizerModelStandsInForTokenizerJson) {
  const TempFolder folder("convert_tiktoken");
  SampleCheckpoint("glm").write(folder / "in");
  const auto convert = [&] {
    return convert_checkpoint(folder / "in", folder / "out.h5", options_of(DType::kQ40));
  };
  write_bytes(folder / "in" / "tokenizer.model", "IQ== 0\n");
  expect_error(convert, ExitCode::kModelFile, {"tokenizer.model", "added_tokens_decoder"});
  write_bytes(folder / "in" / "tokenizer_config.json",
              R"({"added_tokens_decoder": {"1": {"content": "<sop>", "special": true}}})");
  convert();
  const Json json = Json::parse(read_model_index(folder / "out.h5").texts.tokenizer);
  EXPECT_EQ(json["model"]["vocab"], Json::parse(R"({"!": 0})"));
  EXPECT_EQ(json["added_tokens"][0]["content"], "<sop>");
  write_bytes(folder / "in" / "tokenizer.model", "IQ== 0\nIg== x\n");
  expect_error(convert, ExitCode::kModelFile, {"tokenizer.model:2"});
  write_bytes(folder / "in" / "tokenizer.model", "\x0a\x05SentencePiece");
  EXPECT_NE(convert().warnings.at(0).find("tokenizer.model is not"), std::string::npos);
}

TEST(Convert, TemplatesInTokenizerConfig) {
  const TempFolder folder("convert_template");
  SampleCheckpoint("glm").write(folder / "in");
  const auto stored = [&](const std::string& tokenizer_config) {
    write_bytes(folder / "in" / "tokenizer_config.json", tokenizer_config);
    convert_checkpoint(folder / "in", folder / "out.h5", options_of(DType::kQ40));
    return read_model_index(folder / "out.h5").texts.chat_template;
  };
  EXPECT_EQ(stored(R"({"chat_template": "one"})"), "one");
  EXPECT_EQ(stored(R"({"chat_template": [{"name": "tool_use", "template": "a"},
                                         {"name": "default", "template": "b"}]})"),
            "b");
  EXPECT_EQ(stored(R"({"chat_template": null})"), "");
  expect_error([&] { stored(R"({"chat_template": [{"name": "rag", "template": "a"}]})"); },
               ExitCode::kModelFile,
               {"tokenizer_config.json", "default"});
  write_bytes(folder / "in" / "chat_template.jinja", "file");
  EXPECT_EQ(stored(R"({"chat_template": "one"})"), "file");
}

TEST(Convert, F32HoldsTheNumbersOfTheSource) {
  const TempFolder folder("convert_f32");
  const auto out = folder / "model.h5";
  convert_checkpoint(golden_folder("glm4_moe_air"), out, options_of(DType::kF32));
  const ModelIndex index = read_model_index(out);
  const Checkpoint source(golden_folder("glm4_moe_air"));
  const std::string layer = "model.layers.1.";
  EXPECT_EQ(stored_values(index, "embedding"),
            source_values(source, {"model.embed_tokens.weight"}));
  EXPECT_EQ(stored_values(index, "layers.1.attention.qkv"),
            source_values(source,
                          {layer + "self_attn.q_proj.weight",
                           layer + "self_attn.k_proj.weight",
                           layer + "self_attn.v_proj.weight"}));
  EXPECT_EQ(stored_values(index, "layers.1.attention.qkv_bias"),
            source_values(source,
                          {layer + "self_attn.q_proj.bias",
                           layer + "self_attn.k_proj.bias",
                           layer + "self_attn.v_proj.bias"}));
  EXPECT_EQ(
      stored_values(index, "layers.0.mlp.gate_up"),
      source_values(source,
                    {"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"}));
  EXPECT_EQ(stored_values(index, "layers.1.router_bias"),
            source_values(source, {layer + "mlp.gate.e_score_correction_bias"}));
  std::vector<std::string> gate_up;
  std::vector<std::string> down;
  for (int e = 0; e < 8; ++e) {
    const std::string expert = layer + "mlp.experts." + std::to_string(e);
    gate_up.push_back(expert + ".gate_proj.weight");
    gate_up.push_back(expert + ".up_proj.weight");
    down.push_back(expert + ".down_proj.weight");
  }
  EXPECT_EQ(stored_values(index, "layers.1.experts.gate_up"), source_values(source, gate_up));
  EXPECT_EQ(stored_values(index, "layers.1.experts.down"), source_values(source, down));
}

TEST(Convert, ChatGlmHoldsTheNumbersOfGlm) {
  const TempFolder folder("convert_chatglm");
  convert_checkpoint(golden_folder("chatglm"), folder / "a.h5", options_of(DType::kQ40));
  convert_checkpoint(golden_folder("glm"), folder / "b.h5", options_of(DType::kQ40));
  const ModelIndex a = read_model_index(folder / "a.h5");
  const ModelIndex b = read_model_index(folder / "b.h5");
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (const TensorEntry& entry : a.entries)
    EXPECT_EQ(stored_values(a, entry.name), stored_values(b, entry.name)) << entry.name;
}

// q80 as it is encoded in one piece; tile16 alternates 16 gate and 16 up rows.
TEST(Convert, TilesAlternateGateAndUp) {
  const TempFolder folder("convert_tiles");
  const auto out = folder / "model.h5";
  convert_checkpoint(golden_folder("glm4_moe_air"), out, options_of(DType::kQ80));
  const ModelIndex index = read_model_index(out);
  ASSERT_EQ(index.find("layers.1.experts.gate_up")->packing, Packing::kTile16);
  const std::vector<float> stored = stored_values(index, "layers.1.experts.gate_up");
  const Checkpoint checkpoint(golden_folder("glm4_moe_air"));
  constexpr int64_t kInner = 32;
  constexpr int64_t kCols = 64;
  for (int e = 0; e < 8; ++e) {
    const std::string expert = "model.layers.1.mlp.experts." + std::to_string(e);
    const std::vector<float> gate = source_values(checkpoint, {expert + ".gate_proj.weight"});
    const std::vector<float> up = source_values(checkpoint, {expert + ".up_proj.weight"});
    for (int64_t row = 0; row < 2 * kInner; ++row) {
      const std::vector<float>& from = row / 16 % 2 == 0 ? gate : up;
      const int64_t source_row = row / 32 * 16 + row % 16;
      for (int64_t col = 0; col < kCols; ++col) {
        const auto at = static_cast<size_t>((e * 2 * kInner + row) * kCols + col);
        const float x = from[static_cast<size_t>(source_row * kCols + col)];
        ASSERT_NEAR(stored[at], x, 0.01) << "expert " << e << " row " << row;
      }
    }
  }
}

TEST(Convert, BytesDoNotDependOnThreadsOrMemory) {
  const TempFolder folder("convert_threads");
  const auto tiny = std::filesystem::path(GLM_TEST_DATA) / "tiny";
  ConvertOptions options = options_of(DType::kQ40);
  convert_checkpoint(tiny, folder / "a.h5", options);
  options.threads = 5;
  options.batch_bytes = 50'000;
  convert_checkpoint(tiny, folder / "b.h5", options);
  EXPECT_TRUE(read_bytes(folder / "a.h5") == read_bytes(folder / "b.h5"));
  options.memory_limit = 1000;
  expect_error([&] { convert_checkpoint(tiny, folder / "c.h5", options); },
               ExitCode::kResources,
               {"memory limit"});
  EXPECT_FALSE(std::filesystem::exists(folder / "c.h5.partial"));
}

TEST(Convert, FusedExpertsGiveTheSameFile) {
  const TempFolder folder("convert_fused");
  SampleCheckpoint sample("qwen3_moe");
  for (int layer = 0; layer < 3; ++layer) {
    const std::string base = "model.layers." + std::to_string(layer) + ".mlp.experts.";
    SampleTensor gate_up{"F32", {8, 64, 64}, ""};
    SampleTensor down{"F32", {8, 64, 32}, ""};
    for (int e = 0; e < 8; ++e) {
      const auto take = [&](const std::string& name) {
        const auto node = sample.tensors.extract(base + std::to_string(e) + name);
        return node.mapped().bytes;
      };
      gate_up.bytes += take(".gate_proj.weight");
      gate_up.bytes += take(".up_proj.weight");
      down.bytes += take(".down_proj.weight");
    }
    sample.tensors[base + "gate_up_proj"] = gate_up;
    sample.tensors[base + "down_proj"] = down;
  }
  sample.write(folder / "fused");
  convert_checkpoint(folder / "fused", folder / "a.h5", options_of(DType::kQ40));
  convert_checkpoint(golden_folder("qwen3_moe"), folder / "b.h5", options_of(DType::kQ40));
  const ModelIndex a = read_model_index(folder / "a.h5");
  const ModelIndex b = read_model_index(folder / "b.h5");
  for (const TensorEntry& entry : b.entries)
    EXPECT_EQ(stored_values(a, entry.name), stored_values(b, entry.name)) << entry.name;
}

TEST(Convert, TiedHeadAndBuffersAreLeftOut) {
  const TempFolder folder("convert_tied");
  SampleCheckpoint sample("llama");
  sample.config["tie_word_embeddings"] = true;
  sample.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      "F32", {8}, std::string(32, '\0')};
  sample.write(folder / "in");
  const ConvertReport report =
      convert_checkpoint(folder / "in", folder / "out.h5", options_of(DType::kQ40));
  ASSERT_EQ(report.warnings.size(), 2u);
  EXPECT_NE(report.warnings[1].find("lm_head.weight is ignored"), std::string::npos);
  EXPECT_EQ(read_model_index(folder / "out.h5").find("head"), nullptr);
}

TEST(Convert, HalfTypesThatConfigAndHeaderNameDifferently) {
  const TempFolder folder("convert_half");
  SampleCheckpoint sample("llama");
  for (auto& [name, tensor] : sample.tensors) {
    tensor.dtype = "F16";
    tensor.bytes.resize(tensor.bytes.size() / 2);
    for (char& byte : tensor.bytes) byte = 0x3C;
  }
  const auto warnings = [&](const std::string& dtype) {
    sample.config["torch_dtype"] = dtype;
    sample.write(folder / "in");
    return convert_checkpoint(folder / "in", folder / "out.h5", options_of(DType::kQ40)).warnings;
  };
  EXPECT_EQ(warnings("float16").size(), 1u);  // the tokenizer's
  const auto differ = warnings("bfloat16");
  ASSERT_EQ(differ.size(), 2u);
  EXPECT_NE(differ[1].find("are F16 where torch_dtype of config.json is bfloat16"),
            std::string::npos)
      << differ[1];
}

TEST(Convert, ColumnsThatAreNoMultipleOfABlock) {
  const TempFolder folder("convert_odd");
  SampleCheckpoint sample("llama");
  sample.config["intermediate_size"] = 40;
  for (auto& [name, tensor] : sample.tensors) {
    if (name.find(".mlp.") == std::string::npos) continue;
    const bool down = name.find("down_proj") != std::string::npos;
    tensor.shape = down ? std::vector<int64_t>{64, 40} : std::vector<int64_t>{40, 64};
    tensor.bytes.resize(64 * 40 * 4);
  }
  sample.write(folder / "in");
  const ConvertReport report =
      convert_checkpoint(folder / "in", folder / "out.h5", options_of(DType::kQ40));
  ASSERT_EQ(report.warnings.size(), 2u);
  EXPECT_NE(report.warnings[1].find("3 tensors are stored as f16: their 40 columns"),
            std::string::npos)
      << report.warnings[1];
  const ModelIndex index = read_model_index(folder / "out.h5");
  EXPECT_EQ(index.find("layers.0.mlp.down")->dtype, DType::kF16);
  EXPECT_EQ(index.find("layers.0.mlp.gate_up")->packing, Packing::kRows);
}

TEST(Synthetic, SameSeedSameBytes) {
  const TempFolder folder("convert_synthetic");
  const auto config = std::filesystem::path(GLM_TEST_DATA) / "tiny" / "config.json";
  ConvertOptions options = options_of(DType::kQ40);
  const ConvertReport report = convert_synthetic(config, folder / "a.h5", options);
  EXPECT_TRUE(report.has_mtp);
  options.threads = 1;
  options.batch_bytes = 50'000;
  convert_synthetic(config, folder / "b.h5", options);
  EXPECT_TRUE(read_bytes(folder / "a.h5") == read_bytes(folder / "b.h5"));
  options.seed = 1;
  convert_synthetic(config, folder / "c.h5", options);
  const ModelIndex a = read_model_index(folder / "a.h5");
  const ModelIndex c = read_model_index(folder / "c.h5");
  EXPECT_NE(stored_values(a, "embedding"), stored_values(c, "embedding"));
  EXPECT_EQ(a.texts.config, read_bytes(config));
}

TEST(Synthetic, VarianceFollowsTheInput) {
  const TempFolder folder("convert_variance");
  const auto config = std::filesystem::path(GLM_TEST_DATA) / "tiny" / "config.json";
  convert_synthetic(config, folder / "a.h5", options_of(DType::kF32));
  const ModelIndex index = read_model_index(folder / "a.h5");
  for (const auto& [name, expected] : {std::pair{"layers.0.attention.qkv", 1.0 / 128},
                                       {"layers.0.mlp.down", 1.0 / 352},
                                       {"embedding", 1.0}}) {
    const std::vector<float> values = stored_values(index, name);
    double sum = 0.0;
    double squares = 0.0;
    for (const float x : values) {
      sum += x;
      squares += double{x} * x;
    }
    const auto n = static_cast<double>(values.size());
    EXPECT_NEAR(squares / n / expected, 1.0, 0.05) << name;
    EXPECT_NEAR(sum / n, 0.0, 5.0 * std::sqrt(expected / n)) << name;
  }
}

}  // namespace
}  // namespace glm
