// Wrong options and inputs of glm_convert and glm_inspect: one line, the right exit code, and no
// unfinished file. SPDX-License-Identifier: MIT
#include <sys/stat.h>

#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

class BadConvert : public testing::Test {
 protected:
  void expect(const Args& args, int code, const std::vector<std::string>& texts) {
    expect_error(convert(args), code, texts, "glm_convert");
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      EXPECT_FALSE(entry.path().string().find(".h5") != std::string::npos) << entry.path();
  }
  // A copy of a small checkpoint to damage.
  fs::path copy(const std::string& name) {
    fs::copy(test_data("golden/llama"), folder_ / name);
    return folder_ / name;
  }
  std::string out() const { return folder_ / "out.h5"; }

  TempFolder folder_{"bad_convert"};
};

TEST_F(BadConvert, Options) {
  const std::string in = test_data("golden/llama");
  expect({}, 2, {"HF_DIR", "--help"});
  expect({in}, 2, {"OUT"});
  expect({in, out(), "third"}, 2, {"third"});
  expect({in, out(), "--nonsense"}, 2, {"--nonsense"});
  for (const char* dtype : {"i32", "Q40", "", "q41"})
    expect({in, out(), "--dtype", dtype}, 2, {"--dtype"});
  expect({in, out(), "--embedding-dtype", "x"}, 2, {"--embedding-dtype"});
  expect({in, out(), "--head-dtype", "x"}, 2, {"--head-dtype"});
  for (const char* threads : {"0", "-1", "100000", "x", "1.5"})
    expect({in, out(), "--threads", threads}, 2, {"--threads"});
  for (const char* size : {"0", "-5", "x", "5Q", "99999999999999999999", "1e9"})
    expect({in, out(), std::string("--memory-limit=") + size}, 2, {"--memory-limit"});
  expect({"--synthetic", in + "/config.json", out(), "more"}, 2, {"--synthetic"});
  expect({"--synthetic", in + "/config.json"}, 2, {"OUT"});
  for (const char* seed : {"-1", "x"})
    expect(
        {"--synthetic", in + "/config.json", out(), std::string("--seed=") + seed}, 2, {"--seed"});
}

TEST_F(BadConvert, Folders) {
  expect({folder_ / "none", out()}, 2, {"none"});
  expect({folder_ / "none\n\x1b[2J", out()}, 2, {"none\\x0a\\x1b"});
  write_bytes(folder_ / "file", "x");
  expect({folder_ / "file", out()}, 2, {"file"});
  fs::create_directories(folder_ / "empty");
  expect({folder_ / "empty", out()}, 3, {"empty: no weights"});
  fs::remove(copy("no_weights") / "model.safetensors");
  expect({folder_ / "no_weights", out()}, 3, {"no_weights"});
  expect({"--synthetic", folder_ / "none.json", out()}, 2, {"none.json"});
}

TEST_F(BadConvert, Shards) {
  const fs::path truncated = copy("truncated") / "model.safetensors";
  fs::resize_file(truncated, fs::file_size(truncated) - 100);
  expect({folder_ / "truncated", out()}, 3, {"model.safetensors"});
  write_bytes(copy("short") / "model.safetensors", "1234567");
  expect({folder_ / "short", out()}, 3, {"model.safetensors"});
  write_bytes(copy("empty") / "model.safetensors", "");
  expect({folder_ / "empty", out()}, 3, {"model.safetensors"});
  write_bytes(copy("long") / "model.safetensors", std::string(8, '\xff') + "{}");
  expect({folder_ / "long", out()}, 3, {"model.safetensors"});
  fs::remove(copy("fifo") / "model.safetensors");
  ASSERT_EQ(mkfifo((folder_ / "fifo/model.safetensors").c_str(), 0600), 0);
  expect({folder_ / "fifo", out()}, 3, {"model.safetensors"});
  fs::remove(copy("folder") / "model.safetensors");
  fs::create_directory(folder_ / "folder/model.safetensors");
  expect({folder_ / "folder", out()}, 3, {"model.safetensors"});
  write_bytes(copy("index") / "model.safetensors.index.json",
              R"({"weight_map": {"model.embed_tokens.weight": "../../../etc/passwd"}})");
  expect({folder_ / "index", out()}, 3, {"model.safetensors.index.json"});
}

TEST_F(BadConvert, Configs) {
  const fs::path folder = copy("config");
  const std::string good = read_bytes(folder / "config.json");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write_bytes(folder / "config.json", text.replace(at, from.size(), to));
    expect({folder, out()}, 3, {"config.json"});
  };
  with("\"llama\"", "\"mamba\"");
  with("\"hidden_size\": 64", "\"hidden_size\": 2147483648");
  with("\"hidden_size\": 64", "\"hidden_size\": \"64\"");
  with("\"num_attention_heads\": 4", "\"num_attention_heads\": 0");
  with("\"num_hidden_layers\": 3", "\"num_hidden_layers\": -3");
  with("\"rope_theta\": 500000.0", "\"rope_theta\": NaN");
  with("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}");
  with("{", "{{");
  with("\"hidden_size\": 64", "\"hidden_size\": 64, \"hidden_size\": 128");
  fs::resize_file(folder / "config.json", 100'000'000);  // sparse
  expect({folder, out()}, 3, {"config.json"});
}

TEST_F(BadConvert, Outputs) {
  const std::string in = test_data("golden/llama");
  expect({in, folder_ / "none/out.h5"}, 2, {"none/out.h5"});
  expect({in, folder_.path()}, 2, {folder_.path()});
  expect({in, "/proc/out.h5"}, 2, {"/proc/out.h5"});
  write_bytes(folder_ / "notes.txt", "important");
  expect({in, folder_ / "notes.txt"}, 2, {"notes.txt"});
  EXPECT_EQ(read_bytes(folder_ / "notes.txt"), "important");
}

TEST_F(BadConvert, AFullDiskLeavesNothingBehind) {
  Command command = convert({test_data("golden/llama"), out()});
  command.file_size = 100000;
  expect_error(command, 4, {"out.h5"}, "glm_convert");
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(BadConvert, AFullStdoutIsAnError) {
  Command command = convert({test_data("golden/llama"), out()});
  command.stdout_path = "/dev/full";
  expect_error(command, 1, {"standard output"}, "glm_convert");
}

TEST_F(BadConvert, AFolderWithoutTokenizerIsOnlyWarnedAbout) {
  const Outcome outcome = expect_good(convert({test_data("golden/llama"), out()}));
  EXPECT_NE(outcome.err.find("glm_convert: warning: "), std::string::npos) << outcome.err;
  EXPECT_TRUE(fs::exists(out()));
  expect_good(convert({test_data("golden/llama"), out()}));  // an older model file is replaced
}

void expect_inspect(const Args& args, int code, const std::vector<std::string>& texts) {
  expect_error(inspect(args), code, texts, "glm_inspect");
}

TEST(BadInspect, Options) {
  expect_inspect({}, 2, {"show"});
  expect_inspect({"nonsense"}, 2, {"nonsense"});
  expect_inspect({"show"}, 2, {"MODEL"});
  expect_inspect({"show", test_data("tiny"), "--nonsense"}, 2, {"--nonsense"});
  expect_inspect({"tokenize", test_data("tiny")}, 2, {"--jsonl"});
  expect_inspect({"render", test_data("tiny")}, 2, {"--messages"});
  expect_inspect(
      {"render", test_data("tiny"), "--messages", "x", "--thinking", "maybe"}, 2, {"--thinking"});
}

TEST(BadInspect, Models) {
  expect_inspect({"show", "none.h5"}, 2, {"none.h5"});
  const TempFolder folder("bad_inspect");
  expect_inspect({"show", folder.path()}, 3, {"config.json"});
  write_bytes(folder / "text.h5", "text");
  expect_inspect({"show", folder / "text.h5"}, 3, {"text.h5"});
  write_bytes(folder / "in.jsonl", "\"a\"\n");
  expect_inspect(
      {"tokenize", test_data("golden/llama"), "--jsonl", folder / "in.jsonl"}, 3, {"tokenizer"});
}

TEST(BadInspect, Inputs) {
  const TempFolder folder("bad_lines");
  const std::string model = test_data("tiny");
  const auto lines = [&](const std::string& command, const std::string& text, const char* where) {
    write_bytes(folder / "in.jsonl", text);
    expect_inspect({command, model, "--jsonl", folder / "in.jsonl"}, 2, {where});
  };
  lines("tokenize", "\"a\"\nb\n", "in.jsonl:2");
  lines("tokenize", "[1]\n", "in.jsonl:1");
  lines("tokenize", "\"\xff\"\n", "in.jsonl:1");
  lines("detokenize", "\"a\"\n", "in.jsonl:1");
  lines("detokenize", "[-1]\n", "in.jsonl:1");
  lines("detokenize", "[1.5]\n", "in.jsonl:1");
  lines("detokenize", "[99999999999]\n", "in.jsonl:1");
  lines("detokenize", "[18446744073709551615]\n", "in.jsonl:1");
  expect_inspect({"tokenize", model, "--jsonl", folder / "none"}, 2, {"none"});
  expect_inspect({"tokenize", model, "--jsonl", folder.path()}, 2, {folder.path()});
  for (const char* text : {"{}", "[", "", "\xff", "3"}) {
    write_bytes(folder / "messages.json", text);
    expect_inspect({"render", model, "--messages", folder / "messages.json"}, 2, {"messages.json"});
  }
  write_bytes(folder / "messages.json", R"([{"role": "user", "content": "x"}])");
  write_bytes(folder / "tools.json", "3");
  expect_inspect(
      {"render", model, "--messages", folder / "messages.json", "--tools", folder / "tools.json"},
      2,
      {"tools.json"});
}

TEST(BadInspect, AFullStdoutIsAnError) {
  Command command = inspect({"show", test_data("tiny")});
  command.stdout_path = "/dev/full";
  expect_error(command, 1, {"standard output"}, "glm_inspect");
}

}  // namespace
}  // namespace glm::testing_support
