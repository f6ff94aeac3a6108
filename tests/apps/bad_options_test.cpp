// Wrong options, prompts, grids and surroundings of glm_infer: one line, the right exit code, soon.
// Cases 71 to 82 of docs/bad_input.md on one rank; bad_options_mpi_test.cpp has those of a job.
// SPDX-License-Identifier: MIT
#include <sys/stat.h>

#include "core/base/device.h"
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

Args with_prompt(const Args& more) {
  Args args = {"--model", model_file("tiny", "q40"), "--prompt", "Hi.", "--max-tokens", "2"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

Args model_and(const Args& more) {
  Args args = {"--model", model_file("tiny", "q40")};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

void expect_usage(const Args& args, const std::vector<std::string>& texts) {
  expect_error(infer(0, args), 2, texts);
}

TEST(BadOption, UnknownRepeatedConflictingAndIncomplete) {
  expect_usage(with_prompt({"--nonsense"}), {"--nonsense", "--help"});
  expect_usage(with_prompt({"stray"}), {"stray"});
  expect_usage(with_prompt({"--seed", "1", "--seed", "2"}), {"--seed"});
  expect_usage(with_prompt({"--tokens", "1,2"}), {"--prompt", "--tokens"});
  expect_usage(with_prompt({"--raw", "--system", "x"}), {"--raw", "--system"});
  expect_usage(with_prompt({"--seed"}), {"--seed"});
  expect_usage({"--prompt", "x"}, {"--model"});
  expect_usage(model_and({"--raw"}), {"no prompt", "--raw"});
  expect_usage(with_prompt({"--benchmark"}), {"--benchmark"});
  expect_usage(with_prompt({"--ranks", "2"}), {"--ranks", "mpirun -np"});
  expect_usage(with_prompt({"--stop", ""}), {"--stop"});
}

TEST(BadOption, SyntheticModels) {
  const TempFolder folder("synthetic");
  const std::string config = folder_with_config("bad_synthetic", config_9b()) + "/config.json";
  const auto refused = [&](const Args& more, const std::vector<std::string>& texts) {
    Args args = {"--synthetic", config};
    args.insert(args.end(), more.begin(), more.end());
    expect_usage(args, texts);
  };
  refused({"--prompt", "Hi."}, {"--synthetic", "no tokenizer", "--tokens"});
  refused({}, {"--synthetic", "no tokenizer"});  // a chat
  refused({"--model", "m.h5", "--benchmark"}, {"--model", "--synthetic"});
  refused({"--benchmark", "--dtype", "q4"}, {"--dtype"});
  refused({"--benchmark", "--head-dtype", "i32"}, {"--head-dtype"});
  refused({"--benchmark", "--synthetic-seed", "-1"}, {"--synthetic-seed"});
  expect_usage({"--synthetic", folder / "none.json", "--benchmark"}, {"none.json", "no such file"});
  expect_usage({"--synthetic", folder.path(), "--benchmark"}, {"config.json is needed"});
  expect_usage({"--synthetic", "", "--benchmark"}, {"--synthetic needs a path"});
  expect_usage(model_and({"--synthetic-seed", "1", "--benchmark"}), {"--synthetic-seed"});
  write_bytes(folder / "text.json", "{\"model_type\": ");
  expect_error(infer(0, {"--synthetic", folder / "text.json", "--benchmark"}), 3, {"text.json"});
}

TEST(BadOption, NumbersOutOfRange) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"--max-tokens", {"-1", "0", "1e9", "18446744073709551616", " 5", "5 ", "0x5", "+5", ""}},
      {"--temperature", {"nan", "-1", "inf", "1,5", "x", "101", ""}},
      {"--top-p", {"0", "2", "-0.1", "nan", "0,5"}},
      {"--min-p", {"-0.1", "1.1", "nan"}},
      {"--top-k", {"-1", "1.5", "4294967296"}},
      {"--repetition-penalty", {"0", "-1", "nan"}},
      {"--seed", {"-1", "18446744073709551616"}},
      {"--context", {"0", "-5", "99999999999"}},
      {"--threads", {"0", "-1", "100000", "two"}},
      {"--tensor", {"0", "-2", "9999999"}},
      {"--timeout", {"0", "-1", "nan", "soon"}},
      {"--repeat", {"0"}},
      {"--thinking", {"maybe", ""}},
      {"--kv-dtype", {"f64"}},
      {"--ops", {"fast"}},
      {"--device", {"tpu"}},
      {"--expert-exchange", {"send"}},
  };
  for (const auto& [option, values] : cases)
    for (const std::string& value : values)
      expect_error(
          infer(0, {"--model", "none.h5", "--prompt", "x", option + "=" + value}), 2, {option});
}

TEST(BadOption, CudaIsNotInThisBuild) {
  // Of a build without CUDA, or a host without a GPU.
  expect_error(infer(0, with_prompt({"--device", "cuda"})),
               cuda_version_text() == "not built in" ? 2 : 4,
               {"--device cuda"});
  // Without CUDA operations the variable means nothing.
  for (const char* devices : {"", "99", "0,0"}) {
    Command command = infer(0, with_prompt({}));
    command.env = {{"CUDA_VISIBLE_DEVICES", devices}};
    expect_good(command);
  }
}

TEST(BadOption, TextThatIsNotUtf8OrHoldsControlBytes) {
  expect_usage(with_prompt({"--\xff\x1b[31m"}), {"\\xff\\x1b"});
  expect_usage({"--model", "no\nsuch\x1b[2J.h5", "--prompt", "x"}, {"no\\x0asuch\\x1b[2J.h5"});
}

// A prompt in another encoding is not refused: its bytes are its tokens.
TEST(BadPrompt, BytesThatAreNotUtf8AreKept) {
  const Outcome outcome = expect_good(
      infer(0, model_and({"--prompt", "caf\xe9", "--max-tokens", "3", "--temperature", "0"})));
  EXPECT_NE(outcome.out, "");
}

TEST(BadPrompt, Files) {
  const TempFolder folder("bad_prompt");
  const auto file_error = [&](const std::string& path, const std::vector<std::string>& texts) {
    expect_usage(model_and({"--prompt-file", path}), texts);
  };
  file_error(folder / "missing.txt", {"missing.txt"});
  file_error(folder.path(), {folder.path()});
  ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
  file_error(folder / "fifo", {"fifo"});
  file_error("/dev/zero", {"/dev/zero"});
  write_bytes(folder / "empty", "");
  expect_usage(model_and({"--prompt-file", folder / "empty", "--raw", "--max-tokens", "0"}),
               {"--max-tokens"});
  std::filesystem::resize_file(folder / "empty", int64_t{10} << 30);  // sparse: 10 GB
  file_error(folder / "empty", {"empty"});
}

TEST(BadPrompt, ABinaryFileIsAPromptLikeAnyOther) {
  const TempFolder folder("binary_prompt");
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  write_bytes(folder / "binary", bytes);
  expect_good(infer(0, model_and({"--prompt-file", folder / "binary", "--max-tokens", "2"})));
}

TEST(BadPrompt, TooLongForTheContext) {
  std::string words;
  for (int i = 0; i < 3000; ++i) words += "sea ";
  expect_usage(model_and({"--prompt", words, "--context", "64"}), {"context of 64", "--context"});
  expect_usage(model_and({"--prompt", "Hi.", "--max-tokens", "5000", "--context", "512"}),
               {"--max-tokens 5000", "context of 512"});
  expect_usage(model_and({"--prompt", "Hi.", "--context", "1000000"}), {"--context 1000000"});
  expect_usage(model_and({"--benchmark", "--prompt-tokens", "600", "--context", "64"}),
               {"--prompt-tokens 600"});
}

TEST(BadPrompt, Ids) {
  for (const char* ids :
       {"1,2,99999999", "", "1,,2", "1,", "-1", "1 2", "a", "2147483648", "99999999999999999999"})
    expect_usage(model_and({"--tokens", ids}), {"--tokens"});
}

TEST(BadPrompt, TextForAModelWithoutTokenizer) {
  expect_usage({"--model", model_file("golden/glm4_moe_air", "f32"), "--prompt", "x"},
               {"no tokenizer", "--tokens"});
}

TEST(BadGrid, OfOneRank) {
  expect_usage(with_prompt({"--tensor", "2"}), {"tensor 2", "1 rank"});
  expect_usage(with_prompt({"--expert", "3"}), {"--expert 3"});
  expect_usage({"--model",
                model_file("golden/llama", "f32"),
                "--tokens",
                "1",
                "--expert",
                "2",
                "--dry-run",
                "--ranks",
                "2"},
               {"--expert 2"});
}

TEST(BadModel, ATokenizerLargerThanTheVocabulary) {
  const TempFolder folder("large_tokenizer");
  std::filesystem::copy(test_data("golden/llama"), folder / "in");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    std::filesystem::copy_file(test_data("tiny/") + name, folder / "in" / name);
  const std::string path = folder / "model.h5";
  expect_good(convert({folder / "in", path, "--dtype", "f32"}));
  expect_error(
      infer(0, {"--model", path, "--prompt", "x"}), 3, {"model.h5", "the vocabulary has 320"});
  expect_good(infer(0, {"--model", path, "--tokens", "1,2", "--max-tokens", "2"}));
}

TEST(BadModel, Paths) {
  const TempFolder folder("bad_model");
  const auto model_error = [&](const std::string& path, int code, const std::string& text) {
    expect_error(infer(0, {"--model", path, "--prompt", "x"}), code, {text});
  };
  model_error(folder / "missing.h5", 2, "missing.h5");
  model_error("", 2, "--model");
  model_error(test_data("tiny"), 2, "glm_convert");
  model_error(folder.path(), 3, "config.json");
  write_bytes(folder / "text.h5", "this is no HDF5 file");
  model_error(folder / "text.h5", 3, "text.h5");
  write_bytes(folder / "empty.h5", "");
  model_error(folder / "empty.h5", 3, "empty.h5");
  ASSERT_EQ(mkfifo((folder / "fifo.h5").c_str(), 0600), 0);
  model_error(folder / "fifo.h5", 3, "fifo.h5");
  model_error("/dev/zero", 3, "/dev/zero");
}

TEST(BadOutput, LogitsFile) {
  const TempFolder folder("bad_output");
  const auto output_error = [&](const std::string& path) {
    expect_usage(with_prompt({"--dump-logits", path}), {path});
  };
  output_error(folder / "none/logits.h5");
  output_error(folder.path());
  output_error("/proc/logits.h5");
  output_error("");
}

TEST(BadOutput, LogitsIntoTheModelFile) {
  const TempFolder folder("over_model");
  const std::string path = folder / "model.h5";
  std::filesystem::copy_file(model_file("tiny", "q40"), path);
  const std::string before = read_bytes(path);
  std::filesystem::create_symlink("model.h5", folder / "link.h5");
  for (const std::string& name : {path, std::string(folder / "link.h5")})
    expect_usage({"--model", path, "--prompt", "x", "--dump-logits", name}, {"--dump-logits"});
  EXPECT_EQ(read_bytes(path), before);
}

TEST(BadOutput, LogitsThatDoNotFitTheDisk) {
  const TempFolder folder("full_disk");
  Command command = infer(0, with_prompt({"--dump-logits", folder / "logits.h5"}));
  command.file_size = 40000;
  expect_error(command, 4, {"logits.h5"});
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "nothing unfinished is left";
}

TEST(BadOutput, Stdout) {
  for (const Args& more : {Args{}, Args{"--json"}, Args{"--dry-run"}}) {
    Command command = infer(0, with_prompt(more));
    command.stdout_path = "/dev/full";
    expect_error(command, 1, {"stdout"});
    command.stdout_path.clear();
    command.close_stdout = true;
    expect_error(command, 1, {"stdout"});
  }
  for (const char* option : {"--help", "--version"}) {
    Command command = infer(0, {option});
    command.stdout_path = "/dev/full";
    expect_error(command, 1, {"stdout"});
  }
}

TEST(Launch, ASlurmStepThatBecameSeveralJobsIsRefused) {
  Command command = infer(0, with_prompt({}));
  command.env = {{"SLURM_STEP_NUM_TASKS", "4"}, {"OMPI_COMM_WORLD_SIZE", std::nullopt}};
  expect_error(command, 2, {"srun --mpi=pmix"});
}

#ifndef __SANITIZE_ADDRESS__  // its shadow needs terabytes of addresses
TEST(Resources, MemoryThatEndsWhileWorking) {
  Command command = infer(0, with_prompt({"--context", "1024"}));
  command.env = {{"OMPI_MCA_btl", "self"}};
  // Enough to start MPI, HDF5 and the threads, too little for the buffers of the step.
  command.address_space = int64_t{420} << 20;
  const Outcome enough = run(command);
  command.argv.insert(command.argv.end(), {"--threads", "64"});
  const Outcome outcome = run(command);
  EXPECT_TRUE(enough.code == 0 || enough.code == 4) << enough.err;
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  EXPECT_EQ(errors_of("glm_infer", outcome).size(), 1u) << outcome.err;
}
#endif

}  // namespace
}  // namespace glm::testing_support
