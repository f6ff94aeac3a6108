// Configs and checkpoints that tests change before use. SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/model/config.h"
#include "io/json.h"
#include "tests/io/temp_folder.h"

namespace glm {

inline std::filesystem::path golden_folder(const std::string& name) {
  return std::filesystem::path(GLM_TEST_DATA) / "golden" / name;
}

inline const std::vector<std::string>& golden_names() {
  static const std::vector<std::string> names = {
      "chatglm", "glm", "glm4", "glm4_moe_355b", "glm4_moe_air", "llama", "qwen3", "qwen3_moe"};
  return names;
}

inline Json golden_config(const std::string& name) {
  return Json::parse(read_bytes(golden_folder(name) / "config.json"));
}

inline ModelConfig parsed(const Json& json) { return parse_config(json.dump(), "config.json"); }

// The config of GLM-4.5-Air, and with `large` of GLM-4.5.
inline Json real_config(bool large) {
  Json json = golden_config("glm4_moe_air");
  json["hidden_size"] = large ? 5120 : 4096;
  json["num_hidden_layers"] = large ? 92 : 46;
  json["num_attention_heads"] = 96;
  json["num_key_value_heads"] = 8;
  json["head_dim"] = 128;
  json["intermediate_size"] = large ? 12288 : 10944;
  json["moe_intermediate_size"] = large ? 1536 : 1408;
  json["n_routed_experts"] = large ? 160 : 128;
  json["num_experts_per_tok"] = 8;
  json["first_k_dense_replace"] = large ? 3 : 1;
  json["use_qk_norm"] = large;
  json["vocab_size"] = 151552;
  json["max_position_embeddings"] = 131072;
  json["num_nextn_predict_layers"] = 1;
  return json;
}

// The code and message of the Error that `body` throws.
inline Error error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error(ExitCode::kOk, "");
}

inline void expect_error(const std::function<void()>& body,
                         ExitCode code,
                         const std::vector<std::string>& words) {
  const Error error = error_of(body);
  EXPECT_EQ(error.code(), code) << error.what();
  const std::string message = error.what();
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  for (const std::string& word : words)
    EXPECT_NE(message.find(word), std::string::npos) << "no \"" << word << "\" in: " << message;
}

// A safetensors file taken apart, to be changed and written again.
struct SampleTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

class SampleCheckpoint {
 public:
  // The single file of a golden model.
  explicit SampleCheckpoint(const std::string& golden) : folder_(golden_folder(golden)) {
    const std::string file = read_bytes(folder_ / "model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof(length));
    const Json header = Json::parse(file.substr(8, length));
    for (const auto& item : header.items()) {
      if (item.key() == "__metadata__") continue;
      const auto begin = item.value()["data_offsets"][0].get<size_t>();
      const auto end = item.value()["data_offsets"][1].get<size_t>();
      tensors[item.key()] = {item.value()["dtype"].get<std::string>(),
                             item.value()["shape"].get<std::vector<int64_t>>(),
                             file.substr(8 + length + begin, end - begin)};
    }
    config = golden_config(golden);
  }

  void write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    Json header = Json::object();
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      header[name] = {{"dtype", tensor.dtype},
                      {"shape", tensor.shape},
                      {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
      data += tensor.bytes;
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::string file(sizeof(length), '\0');
    std::memcpy(file.data(), &length, sizeof(length));
    write_bytes(folder / "model.safetensors", file + text + data);
    write_bytes(folder / "config.json", config.dump());
  }

  void rename(const std::string& from, const std::string& to) {
    auto node = tensors.extract(from);
    node.key() = to;
    tensors.insert(std::move(node));
  }

  std::map<std::string, SampleTensor> tensors;
  Json config;

 private:
  std::filesystem::path folder_;
};

}  // namespace glm
