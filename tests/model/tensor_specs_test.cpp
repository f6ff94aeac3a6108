// The table of tensors: known parameter counts and file sizes, names, stored types.
// SPDX-License-Identifier: MIT
#include "core/model/tensor_specs.h"

#include <set>

#include "core/model/token_bytes.h"
#include "tests/model/model_samples.h"

namespace glm {
namespace {

int64_t parameters(const ModelConfig& config, bool mtp, bool optional) {
  int64_t sum = 0;
  for (const TensorSpec& spec : tensor_specs(config, mtp))
    if (optional || !spec.optional) sum += spec.elements();
  return sum;
}

int64_t file_bytes(const ModelConfig& config, bool mtp, const DTypeChoice& choice) {
  int64_t sum = 0;
  for (const TensorSpec& spec : tensor_specs(config, mtp))
    if (!spec.optional) sum += stored_bytes(spec, stored_type(spec, config, choice));
  return sum;
}

const TensorSpec& find(const std::vector<TensorSpec>& specs, const std::string& name) {
  for (const TensorSpec& spec : specs)
    if (spec.name == name) return spec;
  static const TensorSpec none;
  ADD_FAILURE() << name << " is not in the table";
  return none;
}

TEST(TensorSpecs, ParameterCountsOfTheReleases) {
  const ModelConfig air = parsed(real_config(false));
  const ModelConfig large = parsed(real_config(true));
  EXPECT_EQ(parameters(air, false, false), 106'852'251'264);
  EXPECT_EQ(parameters(large, false, false), 352'797'829'024);
  // Body and MTP layer without and with its copies of embedding and head.
  EXPECT_NEAR(static_cast<double>(parameters(air, true, false)), 109.227e9, 1e6);
  EXPECT_NEAR(static_cast<double>(parameters(air, true, true)), 110.469e9, 1e6);
  EXPECT_NEAR(static_cast<double>(parameters(large, true, false)), 356.786e9, 1e6);
}

TEST(TensorSpecs, FileSizesOfAir) {
  const ModelConfig air = parsed(real_config(false));
  const auto gigabytes = [&](bool mtp, const DTypeChoice& choice) {
    return static_cast<double>(file_bytes(air, mtp, choice)) / 1e9;
  };
  EXPECT_NEAR(gigabytes(false, default_dtypes(DType::kQ40)), 60.8, 0.05);
  EXPECT_NEAR(gigabytes(true, default_dtypes(DType::kQ40)), 62.1, 0.1);
  EXPECT_NEAR(gigabytes(false, default_dtypes(DType::kBF16)), 213.8, 0.1);
  EXPECT_NEAR(gigabytes(false, {DType::kQ40, DType::kQ40, DType::kQ40}), 60.2, 0.1);
}

TEST(TokenCost, OfAir) {
  const ModelConfig air = parsed(real_config(false));
  std::map<std::string, StoredType, std::less<>> stored;
  for (const TensorSpec& spec : tensor_specs(air, false))
    stored.emplace(spec.name, stored_type(spec, air, {DType::kQ40, DType::kQ40, DType::kQ40}));
  EXPECT_NEAR(static_cast<double>(bytes_per_token(air, stored)), 7.28e9, 0.01e9);
  const int64_t attention = 4096 * (14336 + 12288);
  const int64_t dense = 3 * 4096 * 10944;
  const int64_t experts = 9 * 3 * 4096 * 1408 + 128 * 4096;  // 8 and the shared one, router
  EXPECT_EQ(operations_per_prompt_token(air), 2 * (46 * attention + dense + 45 * experts));
}

TEST(TensorSpecs, ShapesOfAir) {
  const ModelConfig air = parsed(real_config(false));
  const auto specs = tensor_specs(air, true);
  EXPECT_EQ(specs.front().name, "embedding");
  EXPECT_EQ(find(specs, "layers.0.attention.qkv").dims, (std::vector<int64_t>{14336, 4096}));
  EXPECT_EQ(find(specs, "layers.0.attention.qkv_bias").dims, std::vector<int64_t>{14336});
  EXPECT_EQ(find(specs, "layers.0.attention.out").dims, (std::vector<int64_t>{4096, 12288}));
  EXPECT_EQ(find(specs, "layers.0.mlp.gate_up").dims, (std::vector<int64_t>{21888, 4096}));
  EXPECT_EQ(find(specs, "layers.45.experts.gate_up").dims, (std::vector<int64_t>{128, 2816, 4096}));
  EXPECT_EQ(find(specs, "layers.45.experts.down").dims, (std::vector<int64_t>{128, 4096, 1408}));
  EXPECT_EQ(find(specs, "layers.45.shared.down").dims, (std::vector<int64_t>{4096, 1408}));
  EXPECT_EQ(find(specs, "mtp.projection").dims, (std::vector<int64_t>{4096, 8192}));
  EXPECT_EQ(find(specs, "mtp.layer.experts.down").sources[127].name,
            "model.layers.46.mlp.experts.127.down_proj.weight");
  EXPECT_EQ(find(specs, "mtp.layer.router").kind, Kind::kMtp);
  EXPECT_TRUE(find(specs, "mtp.embedding").optional);
}

TEST(TensorSpecs, NamesAreUniqueAndSourcesFillTheTensor) {
  for (const std::string& name : golden_names()) {
    const ModelConfig config = parsed(golden_config(name));
    std::set<std::string> names;
    std::set<std::string> sources;
    for (const TensorSpec& spec : tensor_specs(config, config.family == Family::kGlm4Moe)) {
      EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
      int64_t rows = 0;
      int64_t matrix = 0;
      for (const SourcePart& part : spec.sources) {
        EXPECT_TRUE(sources.insert(part.name).second) << part.name;
        EXPECT_GE(part.matrix, matrix) << spec.name;
        matrix = part.matrix;
        rows += part.rows;
      }
      const int64_t expected =
          spec.dims.size() == 1 ? spec.dims[0] : spec.n_matrices() * spec.rows();
      EXPECT_EQ(rows, expected) << name << " " << spec.name;
    }
  }
}

TEST(TensorSpecs, TiedModelsStoreOneMatrixWithTheHeadsType) {
  Json json = golden_config("llama");
  json["tie_word_embeddings"] = true;
  const ModelConfig config = parsed(json);
  const auto specs = tensor_specs(config, false);
  for (const TensorSpec& spec : specs) EXPECT_NE(spec.name, "head");
  const DTypeChoice choice = {DType::kF32, DType::kF16, DType::kQ80};
  EXPECT_EQ(stored_type(specs[0], config, choice).dtype, DType::kQ80);
}

TEST(StoredType, WhatIsNeverQuantised) {
  const ModelConfig air = parsed(real_config(false));
  const DTypeChoice q40 = default_dtypes(DType::kQ40);
  for (const TensorSpec& spec : tensor_specs(air, true)) {
    const StoredType type = stored_type(spec, air, q40);
    if (spec.dims.size() == 1 || spec.role == Role::kRouter) {
      EXPECT_EQ(type.dtype, DType::kF32) << spec.name;
    } else if (spec.role == Role::kEmbedding || spec.role == Role::kHead) {
      EXPECT_EQ(type.dtype, DType::kQ80) << spec.name;
    } else {
      EXPECT_EQ(type.dtype, DType::kQ40) << spec.name;
      EXPECT_EQ(type.packing, Packing::kTile16) << spec.name;
    }
  }
}

TEST(StoredType, OddShapesFallBack) {
  Json json = golden_config("llama");
  json["head_dim"] = 24;  // heads end within tiles; 96 columns
  json["intermediate_size"] = 40;
  json["vocab_size"] = 321;
  json["eos_token_id"] = 1;
  const ModelConfig config = parsed(json);
  const DTypeChoice q80 = default_dtypes(DType::kQ80);
  const auto specs = tensor_specs(config, false);
  EXPECT_EQ(stored_type(find(specs, "layers.0.attention.qkv"), config, q80).packing,
            Packing::kRows);
  EXPECT_EQ(stored_type(find(specs, "layers.0.mlp.gate_up"), config, q80).packing, Packing::kRows);
  EXPECT_EQ(stored_type(find(specs, "layers.0.mlp.down"), config, q80).dtype, DType::kF16);
  EXPECT_EQ(stored_type(find(specs, "head"), config, q80).packing, Packing::kRows);
  EXPECT_EQ(stored_type(find(specs, "layers.0.attention.out"), config, q80).packing,
            Packing::kTile16);
}

}  // namespace
}  // namespace glm
