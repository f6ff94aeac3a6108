// FP8 checkpoints: every code, both schemes of scales with blocks that do not fill, and what is
// refused. SPDX-License-Identifier: MIT
#include <cmath>

#include "core/model/convert.h"
#include "core/model/fp8_weights.h"
#include "io/model_file.h"
#include "tests/model/model_samples.h"

namespace glm {
namespace {

const std::string kWeight = "model.layers.1.mlp.down_proj.weight";  // [64, 96] of golden/llama

const Json kBlockConfig = {{"quant_method", "fp8"},
                           {"fmt", "e4m3"},
                           {"activation_scheme", "dynamic"},
                           {"weight_block_size", {128, 128}}};
const Json kChannelConfig = {
    {"quant_method", "compressed-tensors"},
    {"format", "float-quantized"},
    {"config_groups",
     {{"group_0",
       {{"targets", {"Linear"}},
        {"weights", {{"num_bits", 8}, {"type", "float"}, {"strategy", "channel"}}}}}}},
    {"ignore", {"lm_head"}}};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// The definition of the type, by powers of two.
float e4m3(int code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const float magnitude =
      exponent == 15 && mantissa == 7 ? std::nanf("")
      : exponent == 0                 ? std::ldexp(static_cast<float>(mantissa) / 8.0f, -6)
                      : std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f, exponent - 7);
  return code < 128 ? magnitude : -magnitude;
}

// Codes that are numbers, in an order without a period of 128.
std::string codes(int64_t count) {
  std::string out(static_cast<size_t>(count), '\0');
  for (size_t i = 0; i < out.size(); ++i) {
    const auto code = static_cast<unsigned char>((i * 37 + i / 251) % 256);
    out[i] = static_cast<char>((code & 0x7F) == 0x7F ? 0x30 : code);
  }
  return out;
}

std::vector<float> scales(int64_t count) {
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(0.01f + 0.003f * static_cast<float>(i));
  return out;
}

// A checkpoint of any tensors, to be read without a model.
void write_tensors(const std::filesystem::path& folder,
                   const std::map<std::string, SampleTensor>& tensors) {
  SampleCheckpoint sample("llama");
  sample.tensors = tensors;
  sample.write(folder);
}

TEST(Fp8, EveryCodeIsItsNumber) {
  const TempFolder folder("fp8_codes");
  std::string all(256, '\0');
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i);
  write_tensors(folder.path(), {{"w", {"F8_E4M3", {256}, all}}});
  const Checkpoint checkpoint(folder.path());
  std::vector<float> out(256);
  checkpoint.read_f32(*checkpoint.find("w"), 0, 256, out.data());
  for (int code = 0; code < 256; ++code) {
    const float expected = e4m3(code);
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(out[static_cast<size_t>(code)])) << code;
    else
      EXPECT_EQ(std::bit_cast<uint32_t>(out[static_cast<size_t>(code)]),
                std::bit_cast<uint32_t>(expected))
          << code;
  }
  EXPECT_EQ(out[0x7E], 448.0f);
  EXPECT_EQ(out[0x01], 0x1p-9f);
  EXPECT_EQ(out[0x38], 1.0f);
}

// Rows in pieces of every size must equal code times scale, one multiplication in f32.
void expect_applied(const std::vector<int64_t>& shape, Fp8Scheme scheme) {
  const TempFolder folder("fp8_apply");
  const bool block = scheme == Fp8Scheme::kBlock;
  const int64_t cols = shape.back();
  const int64_t matrix_rows = shape[shape.size() - 2];
  const int64_t rows = shape.size() == 3 ? shape[0] * matrix_rows : matrix_rows;
  const int64_t row_groups = block ? (matrix_rows + 127) / 128 : matrix_rows;
  const int64_t col_groups = block ? (cols + 127) / 128 : 1;
  const std::vector<float> s = scales(rows / matrix_rows * row_groups * col_groups);
  const std::string w = codes(rows * cols);
  std::vector<int64_t> scale_shape(shape.begin(), shape.end() - 2);
  scale_shape.insert(scale_shape.end(), {row_groups, col_groups});
  write_tensors(folder.path(),
                {{"w", {"F8_E4M3", shape, w}},
                 {block ? "w_scale_inv" : "w_scale", {"F32", scale_shape, bytes_of(s)}}});
  const Checkpoint checkpoint(folder.path());
  const Fp8Weights fp8(folder.path(), checkpoint, scheme);
  const CheckpointTensor& weight = *checkpoint.find("w");
  for (const int64_t step : {rows, int64_t{1}, int64_t{100}}) {
    std::vector<float> out(static_cast<size_t>(rows * cols));
    for (int64_t row = 0; row < rows; row += step) {
      const int64_t n = std::min(step, rows - row);
      checkpoint.read_f32(weight, row * cols, n * cols, out.data() + row * cols);
      fp8.apply(weight, row, n, out.data() + row * cols);
    }
    for (int64_t i = 0; i < rows * cols; ++i) {
      const int64_t matrix = i / cols / matrix_rows;
      const int64_t row = i / cols % matrix_rows;
      const int64_t group = block ? (matrix * row_groups + row / 128) * col_groups + i % cols / 128
                                  : matrix * matrix_rows + row;
      const float expected = e4m3(static_cast<unsigned char>(w[static_cast<size_t>(i)])) *
                             s[static_cast<size_t>(group)];
      ASSERT_EQ(out[static_cast<size_t>(i)], expected) << "element " << i << ", step " << step;
    }
  }
}

TEST(Fp8, ScalesOfChannels) {
  expect_applied({3, 5}, Fp8Scheme::kChannel);
  expect_applied({130, 70}, Fp8Scheme::kChannel);
  expect_applied({3, 34, 40}, Fp8Scheme::kChannel);
}

TEST(Fp8, ScalesOfBlocksThatDoNotFill) {
  expect_applied({1, 1}, Fp8Scheme::kBlock);
  expect_applied({128, 128}, Fp8Scheme::kBlock);
  expect_applied({129, 257}, Fp8Scheme::kBlock);
  expect_applied({127, 130}, Fp8Scheme::kBlock);
  expect_applied({300, 255}, Fp8Scheme::kBlock);
  expect_applied({3, 200, 130}, Fp8Scheme::kBlock);  // blocks begin anew with each expert
}

// Makes one matrix of golden/llama FP8, its scales under `suffix`.
void quantise(SampleCheckpoint& sample, const std::string& suffix, std::vector<int64_t> shape) {
  SampleTensor& weight = sample.tensors.at(kWeight);
  weight.dtype = "F8_E4M3";
  weight.bytes = codes(64 * 96);
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  sample.tensors[kWeight + suffix] = {"F32", std::move(shape), bytes_of(scales(count))};
}

std::vector<float> converted(const SampleCheckpoint& sample, const std::string& name) {
  const TempFolder folder("fp8_convert");
  sample.write(folder / "in");
  ConvertOptions options;
  options.dtypes = default_dtypes(DType::kF32);
  convert_checkpoint(folder / "in", folder / "m.h5", options);
  const ModelIndex index = read_model_index(folder / "m.h5");
  const TensorEntry& entry = *index.find(name);
  std::vector<float> out(static_cast<size_t>(entry.values_bytes) / sizeof(float));
  const WeightReader::Range all = {0, entry.values_bytes, out.data()};
  WeightReader(index, true).read(entry, WeightReader::Plane::kValues, {&all, 1});
  return out;
}

TEST(Fp8, CheckpointsOfBothSchemesConvert) {
  for (const bool block : {true, false}) {
    SampleCheckpoint sample("llama");
    sample.config["quantization_config"] = block ? kBlockConfig : kChannelConfig;
    if (block)
      quantise(sample, "_scale_inv", {1, 1});
    else
      quantise(sample, "_scale", {64, 1});
    const std::vector<float> out = converted(sample, "layers.1.mlp.down");
    ASSERT_EQ(out.size(), 64u * 96u);
    const std::string w = codes(64 * 96);
    const std::vector<float> s = scales(64);
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_EQ(out[i], e4m3(static_cast<unsigned char>(w[i])) * s[block ? 0 : i / 96]) << i;
  }
  // Scales of channels may lack the dimension of one, and may be bf16.
  SampleCheckpoint sample("llama");
  sample.config["quantization_config"] = kChannelConfig;
  quantise(sample, "_scale", {64});
  sample.tensors[kWeight + "_scale"] = {
      "BF16", {64}, bytes_of(std::vector<uint16_t>(64, f32_to_bf16(0.5f)))};
  EXPECT_EQ(converted(sample, "layers.1.mlp.down")[1],
            0.5f * e4m3(static_cast<unsigned char>(codes(2)[1])));
}

// The form that lies in memory: all experts of a layer in one tensor, scales likewise.
TEST(Fp8, FusedExpertsConvert) {
  SampleCheckpoint sample("qwen3_moe");
  sample.config["quantization_config"] = kChannelConfig;
  const std::string base = "model.layers.0.mlp.experts.";
  for (int e = 0; e < 8; ++e)
    for (const char* name : {".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"})
      sample.tensors.erase(base + std::to_string(e) + name);
  const std::string w = codes(8 * 64 * 64);
  const std::vector<float> s = scales(8 * 64);
  sample.tensors[base + "gate_up_proj"] = {"F8_E4M3", {8, 64, 64}, w};
  sample.tensors[base + "gate_up_proj_scale"] = {"F32", {8, 64, 1}, bytes_of(s)};
  sample.tensors[base + "down_proj"] = {"BF16", {8, 64, 32}, std::string(2 * 8 * 64 * 32, '\0')};
  const std::vector<float> out = converted(sample, "layers.0.experts.gate_up");
  ASSERT_EQ(out.size(), w.size());
  for (size_t i = 0; i < out.size(); ++i)
    ASSERT_EQ(out[i], e4m3(static_cast<unsigned char>(w[i])) * s[i / 64]) << i;
}

void expect_refused(const std::function<void(SampleCheckpoint&)>& change,
                    const std::vector<std::string>& words) {
  const TempFolder folder("fp8_bad");
  SampleCheckpoint sample("llama");
  sample.config["quantization_config"] = kBlockConfig;
  quantise(sample, "_scale_inv", {1, 1});
  change(sample);
  sample.write(folder / "in");
  expect_error(
      [&] { convert_checkpoint(folder / "in", folder / "m.h5", {}); }, ExitCode::kModelFile, words);
  EXPECT_FALSE(std::filesystem::exists(folder / "m.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder / "m.h5.partial"));
}

TEST(Fp8, BadScalesAreRefused) {
  const std::string scale = kWeight + "_scale_inv";
  expect_refused([&](SampleCheckpoint& s) { s.tensors.erase(scale); },
                 {"model.safetensors", "tensor " + kWeight, scale, "missing"});
  expect_refused([&](SampleCheckpoint& s) { s.rename(scale, kWeight + "_scale"); },
                 {"tensor " + kWeight, scale, "missing"});
  expect_refused(
      [&](SampleCheckpoint& s) {
        s.tensors[scale] = {"F32", {2, 1}, std::string(8, '\0')};
      },
      {"tensor " + scale, "[2, 1]", "[64, 96]", "[1, 1]"});
  expect_refused(
      [&](SampleCheckpoint& s) {
        s.tensors[scale] = {"F32", {1}, std::string(4, '\0')};
      },
      {"tensor " + scale, "[1]", "[1, 1]"});
  expect_refused(
      [&](SampleCheckpoint& s) {
        s.tensors[scale] = {"I32", {1, 1}, std::string(4, '\0')};
      },
      {"tensor " + scale, "I32"});
  for (const float bad : {-1.0f, std::nanf(""), INFINITY})
    expect_refused(
        [&](SampleCheckpoint& s) { s.tensors[scale].bytes = bytes_of(std::vector<float>{bad}); },
        {"tensor " + scale, "element 0", "no scale"});
  expect_refused([&](SampleCheckpoint& s) { s.tensors[kWeight].bytes[7] = '\x7F'; },
                 {"tensor " + kWeight, "element 7", "not a finite number"});
  expect_refused(
      [&](SampleCheckpoint& s) {
        s.tensors["model.norm.weight"] = {"F8_E4M3", {64}, std::string(64, '\0')};
      },
      {"tensor model.norm.weight", "F8_E4M3", "matrices only"});
  expect_refused([&](SampleCheckpoint& s) { s.tensors[kWeight].dtype = "F8_E5M2"; },
                 {"tensor " + kWeight, "F8_E5M2"});
  // Scales of a weight that is no FP8.
  expect_refused(
      [&](SampleCheckpoint& s) {
        s.tensors["lm_head.weight_scale_inv"] = {"F32", {3, 1}, std::string(12, '\0')};
      },
      {"lm_head.weight_scale_inv", "not a tensor"});
}

TEST(Fp8, OtherQuantisationsAreRefusedByName) {
  const auto refused = [](const Json& config, const std::vector<std::string>& words) {
    std::vector<std::string> all = {"config.json", "quantization_config"};
    all.insert(all.end(), words.begin(), words.end());
    expect_refused([&](SampleCheckpoint& s) { s.config["quantization_config"] = config; }, all);
  };
  const auto changed = [](Json config, const std::string& pointer, const Json& value) {
    config[Json::json_pointer(pointer)] = value;
    return config;
  };
  for (const char* method : {"gptq", "awq", "bitsandbytes", "mxfp4"})
    refused({{"quant_method", method}}, {method});
  refused({{"bits", 4}}, {"quant_method", "absent"});
  refused("fp8", {"object"});
  refused(changed(kBlockConfig, "/weight_block_size", {64, 128}),
          {"weight_block_size", "[64,128]"});
  refused(changed(kBlockConfig, "/weight_block_size", nullptr), {"weight_block_size", "null"});
  refused({{"quant_method", "fp8"}}, {"weight_block_size", "absent"});
  refused(changed(kBlockConfig, "/fmt", "e5m2"), {"fmt", "e5m2"});
  refused(changed(kChannelConfig, "/format", "pack-quantized"), {"format", "pack-quantized"});
  const std::string weights = "/config_groups/group_0/weights";
  refused(changed(kChannelConfig, weights + "/strategy", "tensor"), {"strategy", "tensor"});
  refused(changed(kChannelConfig, weights + "/num_bits", 4), {"num_bits", "4"});
  refused(changed(kChannelConfig, weights + "/type", "int"), {"type", "int"});
  refused(changed(kChannelConfig, weights, 3), {"group_0", "object"});
  refused(changed(kChannelConfig, "/config_groups", Json::object()), {"config_groups"});
  // FP8 tensors in a checkpoint that does not announce them.
  expect_refused([](SampleCheckpoint& s) { s.config.erase("quantization_config"); },
                 {"tensor " + kWeight, "no quantization_config"});
}

}  // namespace
}  // namespace glm
