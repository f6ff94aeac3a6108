// Conversion of bad checkpoints: one line that names tensor and file, and nothing left behind.
// SPDX-License-Identifier: MIT
#include <cmath>

#include "core/model/convert.h"
#include "tests/model/model_samples.h"

namespace glm {
namespace {

// Changes a golden checkpoint, converts it, and looks for the words in the message.
void expect_refused(const std::string& golden,
                    const std::function<void(SampleCheckpoint&)>& change,
                    const std::vector<std::string>& words,
                    DType body = DType::kQ40) {
  const TempFolder folder("convert_bad");
  SampleCheckpoint sample(golden);
  change(sample);
  sample.write(folder / "in");
  std::filesystem::create_directories(folder / "out");
  ConvertOptions options;
  options.dtypes = default_dtypes(body);
  options.threads = 2;
  expect_error([&] { convert_checkpoint(folder / "in", folder / "out" / "model.h5", options); },
               ExitCode::kModelFile,
               words);
  EXPECT_TRUE(std::filesystem::is_empty(folder / "out"));
}

void set_element(SampleTensor& tensor, size_t index, float value) {
  std::memcpy(tensor.bytes.data() + index * sizeof(value), &value, sizeof(value));
}

TEST(ConvertBad, MissingTensor) {
  expect_refused(
      "glm4_moe_air",
      [](SampleCheckpoint& s) { s.tensors.erase("model.layers.1.mlp.experts.3.up_proj.weight"); },
      {"model.layers.1.mlp.experts.3.up_proj.weight", "missing", "in"});
  expect_refused("llama",
                 [](SampleCheckpoint& s) { s.tensors.erase("lm_head.weight"); },
                 {"lm_head.weight", "missing"});
}

TEST(ConvertBad, ExtraTensor) {
  expect_refused(
      "llama",
      [](SampleCheckpoint& s) {
        s.tensors["model.layers.0.self_attn.q_proj.bias"] = {"F32", {64}, std::string(256, '\0')};
      },
      {"model.safetensors", "model.layers.0.self_attn.q_proj.bias", "not a tensor"});
  // A layer more than config.json says.
  expect_refused("qwen3",
                 [](SampleCheckpoint& s) { s.config["num_hidden_layers"] = 2; },
                 {"model.safetensors", "model.layers.2.", "more"});
}

TEST(ConvertBad, Shapes) {
  expect_refused("glm4",
                 [](SampleCheckpoint& s) {
                   s.tensors["model.layers.0.mlp.down_proj.weight"].shape = {96, 64};
                 },
                 {"model.safetensors",
                  "model.layers.0.mlp.down_proj.weight",
                  "[96, 64]",
                  "[64, 96]",
                  "transposed"});
  expect_refused("glm4",
                 [](SampleCheckpoint& s) { s.config["vocab_size"] = 319; },
                 {"model.embed_tokens.weight", "[320, 64]", "[319, 64]"});
  expect_refused("glm4",
                 [](SampleCheckpoint& s) {
                   s.tensors["model.norm.weight"].shape = {1, 64};
                 },
                 {"model.norm.weight", "[1, 64]", "[64]"});
}

TEST(ConvertBad, DTypes) {
  expect_refused("qwen3",
                 [](SampleCheckpoint& s) {
                   s.tensors["model.layers.1.self_attn.q_norm.weight"].dtype = "I32";
                 },
                 {"model.safetensors", "model.layers.1.self_attn.q_norm.weight", "I32"});
  expect_refused("qwen3",
                 [](SampleCheckpoint& s) {
                   s.config["quantization_config"] = {{"quant_method", "fp8"}};
                 },
                 {"config.json", "quantization_config", "weight_block_size"});
}

// Experts of a layer in one tensor: wrong shapes, one of the two alone, both forms at once.
TEST(ConvertBad, FusedExperts) {
  const std::string base = "model.layers.1.mlp.experts.";
  const auto fuse = [&](SampleCheckpoint& s, bool keep) {
    SampleTensor gate_up{"F32", {8, 64, 64}, ""};
    SampleTensor down{"F32", {8, 64, 32}, ""};
    for (int e = 0; e < 8; ++e)
      for (const char* name : {".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"}) {
        const std::string key = base + std::to_string(e) + name;
        (name[1] == 'd' ? down : gate_up).bytes += s.tensors[key].bytes;
        if (!keep) s.tensors.erase(key);
      }
    s.tensors[base + "gate_up_proj"] = gate_up;
    s.tensors[base + "down_proj"] = down;
  };
  expect_refused("qwen3_moe",
                 [&](SampleCheckpoint& s) {
                   fuse(s, false);
                   s.tensors[base + "down_proj"].shape = {8, 32, 64};
                 },
                 {base + "down_proj", "[8, 32, 64]", "[8, 64, 32]"});
  expect_refused("qwen3_moe",
                 [&](SampleCheckpoint& s) {
                   fuse(s, false);
                   s.tensors[base + "gate_up_proj"].shape = {4, 128, 64};
                 },
                 {base + "gate_up_proj", "[4, 128, 64]", "[8, 64, 64]"});
  expect_refused("qwen3_moe",
                 [&](SampleCheckpoint& s) {
                   fuse(s, false);
                   s.tensors.erase(base + "down_proj");
                 },
                 {base + "0.down_proj.weight", "missing"});
  expect_refused("qwen3_moe",
                 [&](SampleCheckpoint& s) { fuse(s, true); },
                 {base + "0.down_proj.weight", "not a tensor", "more"});
}

TEST(ConvertBad, Values) {
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY})
    for (const DType body : {DType::kF32, DType::kQ40})
      expect_refused(
          "llama",
          [&](SampleCheckpoint& s) { set_element(s.tensors[name], 1234, bad); },
          {"model.safetensors", name, "element 1234", "not a finite number"},
          body);
  expect_refused(
      "llama",
      [&](SampleCheckpoint& s) { set_element(s.tensors[name], 7, 1e6f); },
      {"model.safetensors", name, "element 7", "too large for f16"},
      DType::kF16);
}

TEST(ConvertBad, TruncatedFile) {
  const TempFolder folder("convert_truncated");
  SampleCheckpoint("llama").write(folder / "in");
  const auto file = folder / "in" / "model.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
  expect_error([&] { convert_checkpoint(folder / "in", folder / "m.h5", {}); },
               ExitCode::kModelFile,
               {"model.safetensors", "beyond"});
  EXPECT_FALSE(std::filesystem::exists(folder / "m.h5"));
}

TEST(ConvertBad, Paths) {
  const TempFolder folder("convert_paths");
  expect_error([&] { convert_checkpoint(folder / "absent", folder / "m.h5", {}); },
               ExitCode::kUsage,
               {"absent"});
  expect_error([&] { convert_checkpoint(golden_folder("llama"), folder / "no" / "m.h5", {}); },
               ExitCode::kUsage,
               {"m.h5"});
  expect_error([&] { convert_checkpoint(golden_folder("llama"), folder.path(), {}); },
               ExitCode::kUsage,
               {"not a file"});
  SampleCheckpoint("llama").write(folder / "in");
  std::filesystem::remove(folder / "in" / "config.json");
  expect_error([&] { convert_checkpoint(folder / "in", folder / "m.h5", {}); },
               ExitCode::kModelFile,
               {"config.json"});
}

TEST(ConvertBad, AProgressThatThrowsLeavesNothing) {
  const TempFolder folder("convert_interrupt");
  ConvertOptions options;
  options.progress = [](const ConvertProgress& progress) {
    if (progress.done > 10'000) fail(ExitCode::kRuntime, "interrupted");
  };
  expect_error([&] { convert_checkpoint(golden_folder("glm"), folder / "m.h5", options); },
               ExitCode::kRuntime,
               {"interrupted"});
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace glm
