// glm_convert from outside: kill -9 and --resume, --verify, the manifest as sha256sum sees it, the
// bound on memory. SPDX-License-Identifier: MIT
#include <csignal>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

// 77 million parameters: half a second of work.
std::string config() {
  return R"({"architectures": ["Glm4ForCausalLM"], "model_type": "glm4", "attention_bias": true,
 "head_dim": 64, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 4096,
 "max_position_embeddings": 4096, "num_attention_heads": 16, "num_hidden_layers": 4,
 "num_key_value_heads": 2, "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05,
 "rope_theta": 10000.0, "tie_word_embeddings": false, "vocab_size": 8192})";
}

class ConvertProgram : public testing::Test {
 protected:
  void SetUp() override { write_bytes(folder_ / "config.json", config()); }
  Args synthetic(const std::string& out, const Args& more = {}) const {
    Args args = {"--synthetic", folder_ / "config.json", folder_ / out};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  void kill_after(const Args& args, double seconds) {
    Process process(convert(args));
    process.wait_for(seconds);
    for (const pid_t pid : process.pids()) ::kill(pid, SIGKILL);
    process.finish();
  }
  TempFolder folder_{"convert_program"};
};

TEST_F(ConvertProgram, KilledAtRandomMomentsAndResumed) {
  const Outcome whole = expect_good(convert(synthetic("whole.h5")));
  const std::string expected = read_bytes(folder_ / "whole.h5");
  uint64_t state = 20250611;
  const auto moment = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return whole.seconds * static_cast<double>(state >> 40) / static_cast<double>(1 << 24);
  };
  for (int round = 0; round < 3; ++round) {
    // Once, and in the last round several times in a row.
    for (int kills = 0; kills < (round < 2 ? 1 : 4); ++kills)
      kill_after(synthetic("m.h5", {"--resume"}), moment());
    expect_good(convert(synthetic("m.h5", {"--resume"})));
    EXPECT_TRUE(read_bytes(folder_ / "m.h5") == expected) << "round " << round;
    Command check;
    check.argv = {"sha256sum", "-c", "m.h5.sha256"};
    check.folder = folder_.path();
    const Outcome sums = run(check);
    EXPECT_EQ(sums.out, "m.h5: OK\n") << sums.err;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      const std::string name = entry.path().filename();
      EXPECT_EQ(name.find(".partial"), std::string::npos) << name;
      if (name.starts_with("m.h5")) fs::remove(entry.path());
    }
  }
}

TEST_F(ConvertProgram, VerifyFindsOneBit) {
  const std::string out = folder_ / "m.h5";
  expect_good(convert({test_data("golden/llama"), out}));
  const Outcome good = expect_good(convert({"--verify", out, "--json"}));
  EXPECT_EQ(last_json(good)["manifest"], true);
  std::string bytes = read_bytes(out);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write_bytes(out, bytes);
  expect_error(convert({"--verify", out}), 3, {"m.h5"}, "glm_convert");
  EXPECT_TRUE(fs::exists(out));
  expect_error(convert({"--verify", folder_ / "none.h5"}), 2, {"none.h5"}, "glm_convert");
  expect_error(convert({"--verify", folder_ / "config.json"}), 3, {"config.json"}, "glm_convert");
  expect_error(convert({out, "--verify", out}), 2, {"--verify"}, "glm_convert");
  expect_error(convert({"--verify", out, "--resume"}), 2, {"--verify"}, "glm_convert");
}

TEST_F(ConvertProgram, NothingToResumeIsSaid) {
  const Outcome outcome = expect_good(convert(synthetic("m.h5", {"--resume"})));
  EXPECT_NE(outcome.err.find("warning: --resume"), std::string::npos) << outcome.err;
}

TEST_F(ConvertProgram, MemoryStaysWithinTheLimit) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers take memory of their own";
#endif
  for (const int64_t limit : {40, 64, 96}) {
    const Outcome outcome = expect_good(
        convert(synthetic("m.h5", {"--memory-limit", fmt::format("{}M", limit), "--json"})));
    EXPECT_LE(last_json(outcome)["peak_memory_bytes"].get<int64_t>(), limit << 20);
  }
  expect_error(convert(synthetic("n.h5", {"--memory-limit", "12M"})),
               4,
               {"a memory limit of 12582912 bytes is too small"},
               "glm_convert");
  EXPECT_FALSE(fs::exists(folder_ / "n.h5.partial"));
}

}  // namespace
}  // namespace glm::testing_support
