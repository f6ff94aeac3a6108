// --dump-logits of the program against the recorded logits of transformers: 1e-4 of their range at
// f32, on one rank and on a grid of each kind, with the same greedy tokens.
// SPDX-License-Identifier: MIT
#include "io/logits_file.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include <hdf5.h>

#include "tests/apps/programs.h"
#include "tests/support/npy.h"

namespace glm::testing_support {
namespace {

struct Dump {
  std::vector<hsize_t> dims;  // of /logits
  std::vector<float> logits;
  std::vector<int32_t> tokens;
};

template <class T>
std::vector<T> read_dataset(hid_t file, const char* name, hid_t type, std::vector<hsize_t>* dims) {
  const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
  const hid_t space = H5Dget_space(set);
  std::vector<T> values(static_cast<size_t>(H5Sget_simple_extent_npoints(space)));
  if (dims != nullptr) {
    dims->resize(static_cast<size_t>(H5Sget_simple_extent_ndims(space)));
    H5Sget_simple_extent_dims(space, dims->data(), nullptr);
  }
  EXPECT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Sclose(space);
  H5Dclose(set);
  return values;
}

Dump read_dump(const std::string& path) {
  Dump dump;
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  EXPECT_GE(file, 0) << path;
  if (file < 0) return dump;
  dump.logits = read_dataset<float>(file, "/logits", H5T_NATIVE_FLOAT, &dump.dims);
  dump.tokens = read_dataset<int32_t>(file, "/tokens", H5T_NATIVE_INT32, nullptr);
  H5Fclose(file);
  return dump;
}

struct Expected {
  std::string folder;  // of tests/data
  std::vector<int32_t> prompt, greedy;
  NpyMatrix logits;  // a row for the prompt and all generated tokens but the last
};

Expected tiny_expected(const std::string& name) {
  const Json all = Json::parse(read_bytes(test_data("tiny/expected/logits.json")));
  Expected expected{"tiny", all[name]["prompt"], all[name]["generated"], {}};
  expected.logits = read_npy(test_data("tiny/expected/logits_" + name + ".npy"));
  return expected;
}

Expected golden_expected(const std::string& folder) {
  const Json json = Json::parse(read_bytes(test_data(folder + "/expected.json")));
  Expected expected{folder, json["prompt"], json["greedy"], {}};
  expected.logits = read_npy(test_data(folder + "/logits.npy"));
  return expected;
}

std::string comma_separated(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  return text;
}

void expect_recorded(const Expected& expected, int ranks, const Args& grid) {
  std::string trace = expected.folder + " on " + std::to_string(ranks);
  for (const std::string& arg : grid) trace += " " + arg;
  SCOPED_TRACE(trace);
  const std::string path = scratch() / "logits.h5";
  Args args = {"--model",
               model_file(expected.folder, "f32"),
               "--tokens",
               comma_separated(expected.prompt),
               "--temperature",
               "0",
               "--max-tokens",
               std::to_string(expected.greedy.size()),
               "--dump-logits",
               path,
               "--json"};
  args.insert(args.end(), grid.begin(), grid.end());
  const Outcome outcome = expect_good(infer(ranks, args));
  ASSERT_EQ(outcome.code, 0);
  EXPECT_EQ(last_json(outcome)["tokens"].get<std::vector<int32_t>>(), expected.greedy);
  const Dump dump = read_dump(path);
  std::filesystem::remove(path);
  std::vector<int32_t> rows = expected.prompt;
  rows.insert(rows.end(), expected.greedy.begin(), expected.greedy.end() - 1);
  EXPECT_EQ(dump.tokens, rows);
  ASSERT_EQ(dump.dims,
            (std::vector<hsize_t>{rows.size(), static_cast<hsize_t>(expected.logits.cols)}));
  // The tiny model's file has a row for the last token as well.
  ASSERT_GE(expected.logits.rows, static_cast<int64_t>(rows.size()));
  const auto [low, high] =
      std::minmax_element(expected.logits.values.begin(), expected.logits.values.end());
  double worst = 0;
  for (size_t i = 0; i < dump.logits.size(); ++i)
    worst = std::max(worst, std::abs(double{dump.logits[i]} - double{expected.logits.values[i]}));
  EXPECT_LE(worst, 1e-4 * (double{*high} - double{*low}));
}

TEST(LogitsFile, TinyModelOnOneRank) {
  for (const char* name : {"france", "sum", "explain"}) expect_recorded(tiny_expected(name), 0, {});
}

TEST(LogitsFile, TinyModelOnGridsOfEachKind) {
  expect_recorded(tiny_expected("france"), 4, {"--tensor", "2", "--pipeline", "2"});
  expect_recorded(
      tiny_expected("sum"), 4, {"--data", "4", "--expert", "4", "--expert-exchange", "alltoall"});
  expect_recorded(tiny_expected("explain"), 3, {});
  expect_recorded(tiny_expected("france"), 5, {});
}

TEST(LogitsFile, EveryFamilyOnOneRankAndOnFour) {
  for (const char* name : {"chatglm", "glm", "glm4", "llama", "qwen3"}) {
    const Expected expected = golden_expected(std::string("golden/") + name);
    expect_recorded(expected, 0, {});
    expect_recorded(expected, 4, {"--tensor", "2", "--pipeline", "2"});
  }
}

TEST(LogitsFile, MixturesOfExperts) {
  for (const char* name : {"glm4_moe_air", "glm4_moe_355b", "qwen3_moe"}) {
    const Expected expected = golden_expected(std::string("golden/") + name);
    expect_recorded(expected, 0, {});
    expect_recorded(expected, 4, {"--tensor", "2", "--pipeline", "2"});
    expect_recorded(expected, 4, {"--data", "4", "--expert", "4", "--expert-exchange", "alltoall"});
    expect_recorded(expected, 3, {"--tensor", "3"});
    expect_recorded(expected, 5, {});
  }
}

// Every logit to the bit, whatever the number of ranks, where default mode may differ.
TEST(LogitsFile, ReproducibleOnAnyNumberOfRanks) {
  const Expected expected = tiny_expected("sum");
  const std::string path = scratch() / "reproducible.h5";
  std::vector<Dump> dumps;
  const std::vector<std::pair<int, Args>> grids = {
      {1, {}},
      {3, {"--tensor", "3"}},
      {4, {"--data", "2", "--tensor", "2", "--expert-exchange", "alltoall"}},
      {4, {"--pipeline", "2", "--tensor", "2", "--expert-exchange", "reduce"}}};
  for (const auto& [ranks, grid] : grids) {
    Args args = {
        "--model", model_file("tiny", "q40"), "--tokens", comma_separated(expected.prompt)};
    args.insert(args.end(), {"--temperature", "0", "--max-tokens", "8", "--reproducible"});
    args.insert(args.end(), {"--dump-logits", path});
    args.insert(args.end(), grid.begin(), grid.end());
    ASSERT_EQ(expect_good(infer(ranks, args)).code, 0);
    dumps.push_back(read_dump(path));
    std::filesystem::remove(path);
  }
  ASSERT_GT(dumps[0].logits.size(), 0u);
  for (const Dump& dump : dumps) {
    EXPECT_EQ(dump.tokens, dumps[0].tokens);
    ASSERT_EQ(dump.logits.size(), dumps[0].logits.size());
    EXPECT_EQ(std::memcmp(dump.logits.data(), dumps[0].logits.data(), 4 * dump.logits.size()), 0);
  }
}

// Whoever compares two runs compares bytes: no file says when it was written.
TEST(LogitsFile, EqualLogitsMakeEqualFiles) {
  std::vector<std::string> files;
  for (const char* name : {"first.h5", "second.h5"}) {
    const std::string path = scratch() / name;
    LogitsWriter writer(path, 3);
    writer.append(7, std::vector<float>{1, 2, 3});
    writer.append(8, std::vector<float>{4, 5, 6});
    writer.finish();
    files.push_back(read_bytes(path));
    if (files.size() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  }
  EXPECT_FALSE(files[0].empty());
  EXPECT_TRUE(files[0] == files[1]);
}

}  // namespace
}  // namespace glm::testing_support
