// SPDX-License-Identifier: MIT
#include "tests/apps/programs.h"

#include <map>

namespace glm::testing_support {
namespace {

Args joined(Args first, const Args& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Command command_of(Args argv) {
  Command command;
  command.argv = std::move(argv);
  return command;
}

std::string shown(const Command& command, const Outcome& outcome) {
  std::string text = "command:";
  for (const std::string& arg : command.argv) text += " " + escaped(arg, 200);
  text += "\ncode " + std::to_string(outcome.code) + ", signal " + std::to_string(outcome.signal) +
          ", " + std::to_string(outcome.seconds) + " s\n";
  return text + "stdout:\n" + outcome.out.substr(0, 2000) + "\nstderr:\n" +
         outcome.err.substr(0, 4000);
}

// What is refused for its input is refused soon and before it takes memory. Sanitizers take more of
// both.
void expect_cheap(const Command& command, const Outcome& outcome) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static_cast<void>(shown(command, outcome));
#else
  static const int64_t kStart = run(command_of({program("glm_infer"), "--version"})).peak_bytes;
  EXPECT_LT(outcome.cpu_seconds, 1) << shown(command, outcome);
  EXPECT_LT(outcome.peak_bytes, kStart + (int64_t{64} << 20)) << shown(command, outcome);
#endif
}

}  // namespace

std::string program(const std::string& name) { return std::string(GLM_BIN) + "/" + name; }

Command infer(int ranks, Args args) {
  const Args launch = {
      GLM_MPIEXEC, "--oversubscribe", "-np", std::to_string(ranks), program("glm_infer")};
  return command_of(joined(ranks == 0 ? Args{program("glm_infer")} : launch, args));
}

Command convert(Args args) { return command_of(joined({program("glm_convert")}, args)); }
Command inspect(Args args) { return command_of(joined({program("glm_inspect")}, args)); }

std::vector<std::string> errors_of(const std::string& name, const Outcome& outcome) {
  const std::string start = name + ": error: ";
  std::vector<std::string> errors;
  for (const std::string& line : lines_of(outcome.err))
    if (line.starts_with(start)) errors.push_back(line.substr(start.size()));
  return errors;
}

void expect_error(const Command& command,
                  int code,
                  const std::vector<std::string>& texts,
                  const std::string& name) {
  const Outcome outcome = run(command);
  const std::vector<std::string> errors = errors_of(name, outcome);
  EXPECT_FALSE(outcome.timed_out) << shown(command, outcome);
  EXPECT_EQ(outcome.code, code) << shown(command, outcome);
  EXPECT_EQ(errors.size(), 1u) << shown(command, outcome);
  if ((code == 2 || code == 3) && command.argv[0] != GLM_MPIEXEC) expect_cheap(command, outcome);
  for (const std::string& text : texts)
    for (const std::string& error : errors)
      EXPECT_NE(error.find(text), std::string::npos) << "no \"" << text << "\" in " << error;
}

Outcome expect_good(const Command& command) {
  const Outcome outcome = run(command);
  EXPECT_FALSE(outcome.timed_out) << shown(command, outcome);
  EXPECT_EQ(outcome.code, 0) << shown(command, outcome);
  return outcome;
}

Json last_json(const Outcome& outcome) {
  const std::vector<std::string> lines = lines_of(outcome.out);
  return Json::parse(lines.empty() ? std::string() : lines.back());
}

const TempFolder& scratch() {
  static const TempFolder folder("apps");
  return folder;
}

std::string test_data(const std::string& path) { return std::string(GLM_TEST_DATA) + "/" + path; }

std::string model_file(const std::string& folder, const std::string& dtype) {
  std::string name = folder + "_" + dtype + ".h5";
  std::replace(name.begin(), name.end(), '/', '_');
  const std::string path = scratch() / name;
  if (!std::filesystem::exists(path))
    expect_good(convert({test_data(folder), path, "--dtype", dtype}));
  return path;
}

std::string config_air() {
  return R"({"architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe",
 "attention_bias": true, "eos_token_id": [151329, 151336, 151338], "first_k_dense_replace": 1,
 "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 10944,
 "max_position_embeddings": 131072, "moe_intermediate_size": 1408, "n_group": 1,
 "n_routed_experts": 128, "n_shared_experts": 1, "norm_topk_prob": true,
 "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 46,
 "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "pad_token_id": 151329,
 "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05, "rope_scaling": null,
 "rope_theta": 1000000, "routed_scaling_factor": 1.0, "tie_word_embeddings": false,
 "topk_group": 1, "torch_dtype": "bfloat16", "use_qk_norm": false, "vocab_size": 151552})";
}

std::string config_355b() {
  return R"({"architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe",
 "attention_bias": true, "eos_token_id": [151329, 151336, 151338], "first_k_dense_replace": 3,
 "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 12288,
 "max_position_embeddings": 131072, "moe_intermediate_size": 1536, "n_group": 1,
 "n_routed_experts": 160, "n_shared_experts": 1, "norm_topk_prob": true,
 "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 92,
 "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "pad_token_id": 151329,
 "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05, "rope_scaling": null,
 "rope_theta": 1000000, "routed_scaling_factor": 2.5, "tie_word_embeddings": false,
 "topk_group": 1, "torch_dtype": "bfloat16", "use_qk_norm": true, "vocab_size": 151552})";
}

std::string config_9b() {
  return R"({"architectures": ["Glm4ForCausalLM"], "model_type": "glm4",
 "attention_bias": true, "eos_token_id": [151329, 151336, 151338], "head_dim": 128,
 "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 13696,
 "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 40,
 "num_key_value_heads": 2, "pad_token_id": 151329, "partial_rotary_factor": 0.5,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "vocab_size": 151552})";
}

std::string folder_with_config(const std::string& name, const std::string& config) {
  const std::filesystem::path folder = scratch() / name;
  std::filesystem::create_directories(folder);
  write_bytes(folder / "config.json", config);
  return folder;
}

}  // namespace glm::testing_support
