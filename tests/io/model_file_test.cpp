// The model file: what is written comes back, byte for byte, and an interrupted write leaves
// nothing. SPDX-License-Identifier: MIT
#include "io/model_file.h"

#include <csignal>
#include <ctime>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "core/base/check.h"
#include "tests/io/model_file_samples.h"
#include "tests/io/temp_folder.h"

namespace glm {
namespace {

using Plane = WeightReader::Plane;

template <class F>
Error error_of(F&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {ExitCode::kOk, "no error"};
}

TEST(ModelFile, EveryDtypeAndPackingComesBack) {
  const TempFolder folder("model_file");
  write_sample(folder / "m.h5");
  EXPECT_FALSE(std::filesystem::exists(folder / "m.h5.partial"));
  const ModelIndex index = read_model_index(folder / "m.h5");
  EXPECT_EQ(index.architecture, "glm4_moe");
  EXPECT_EQ(index.source_fingerprint, "0123456789abcdef");
  EXPECT_TRUE(index.converter_version.starts_with("glm_convert ")) << index.converter_version;
  EXPECT_EQ(index.texts.config, sample_texts().config);
  EXPECT_EQ(index.texts.generation_config, "{}");
  EXPECT_EQ(index.texts.tokenizer, sample_texts().tokenizer);
  EXPECT_EQ(index.texts.tokenizer_config, "");
  EXPECT_EQ(index.texts.chat_template, sample_texts().chat_template);
  ASSERT_EQ(index.entries.size(), sample_shapes().size());
  WeightReader reader(index, true);
  int64_t total = 0;
  for (const auto& shape : sample_shapes()) {
    const TensorEntry* entry = index.find(shape.name);
    ASSERT_NE(entry, nullptr) << shape.name;
    EXPECT_EQ(entry->dtype, shape.dtype);
    EXPECT_EQ(entry->packing, shape.packing);
    EXPECT_EQ(entry->dims, shape.dims);
    for (const bool scales : {false, true}) {
      const int64_t bytes = sample_plane_bytes(shape, scales);
      EXPECT_EQ(scales ? entry->scales_bytes : entry->values_bytes, bytes);
      std::string got(static_cast<size_t>(bytes), '\0');
      const WeightReader::Range all[] = {{0, bytes, got.data()}};
      reader.read(*entry, scales ? Plane::kScales : Plane::kValues, all);
      EXPECT_EQ(got, sample_bytes(shape.name + (scales ? ".scales" : ""), bytes)) << shape.name;
      total += bytes;
      const int64_t offset = scales ? entry->scales_offset : entry->values_offset;
      if (bytes >= 4096) {
        EXPECT_EQ(offset % 65536, 0) << shape.name;
      }
    }
  }
  EXPECT_EQ(reader.bytes_read(), total);
  EXPECT_EQ(index.find("layers.0"), nullptr);
  EXPECT_EQ(index.find("zzz"), nullptr);
}

TEST(ModelFile, SameInputGivesSameBytesWhateverTheChunks) {
  const TempFolder folder("model_file_same");
  write_sample(folder / "a.h5");
  write_sample(folder / "b.h5", 1000);
  write_sample(folder / "c.h5", 65537);
  const std::string a = read_bytes(folder / "a.h5");
  EXPECT_EQ(a.size(), static_cast<size_t>(read_model_index(folder / "a.h5").file_bytes));
  EXPECT_TRUE(a == read_bytes(folder / "b.h5"));
  EXPECT_TRUE(a == read_bytes(folder / "c.h5"));
}

TEST(ModelFile, IndexTravelsAsBytes) {
  const TempFolder folder("model_file_wire");
  write_sample(folder / "m.h5");
  const ModelIndex index = read_model_index(folder / "m.h5");
  const std::string bytes = index.serialized();
  const ModelIndex copy = ModelIndex::deserialized(bytes);
  EXPECT_EQ(copy.serialized(), bytes);
  EXPECT_EQ(copy.path, index.path);
  EXPECT_EQ(copy.file_bytes, index.file_bytes);
  EXPECT_EQ(copy.checksums, index.checksums);
  ASSERT_NE(copy.find("big"), nullptr);
  EXPECT_EQ(copy.find("big")->values_offset, index.find("big")->values_offset);
  for (size_t cut = 0; cut < bytes.size(); cut += 97)
    EXPECT_EQ(error_of([&] { ModelIndex::deserialized(bytes.substr(0, cut)); }).code(),
              ExitCode::kRuntime)
        << cut;
  EXPECT_EQ(error_of([&] { ModelIndex::deserialized(bytes + "x"); }).code(), ExitCode::kRuntime);
}

TEST(ModelFile, RangesReadEachBlockOnce) {
  const TempFolder folder("model_file_ranges");
  write_sample(folder / "m.h5");
  const ModelIndex index = read_model_index(folder / "m.h5");
  const TensorEntry* big = index.find("big");  // 2.8e6 bytes: blocks of 1, 1 and 0.67 MiB
  const std::string expected = sample_bytes("big", big->values_bytes);
  const int64_t block = index.block_bytes;
  struct Case {
    std::vector<std::pair<int64_t, int64_t>> ranges;  // offset, bytes
    int64_t verified, plain;                          // bytes read
  };
  const int64_t tail = big->values_bytes - 2 * block;
  const std::vector<Case> cases = {
      {{}, 0, 0},
      {{{5, 0}}, 0, 0},
      {{{0, 1}}, block, 1},
      {{{0, 1}, {1, 1}, {100, 7}, {block - 1, 1}}, block, 10},
      {{{block - 3, 6}}, 2 * block, 6},
      {{{block - 3, block + 6}}, 3 * block - block + tail, block + 6},
      {{{10, 10}, {2 * block, tail}}, block + tail, 10 + tail},
      {{{0, block}, {block, block / 2}, {block + block / 2, 0}, {block + block / 2, 4}},
       2 * block,
       block + block / 2 + 4},
      {{{big->values_bytes - 1, 1}}, tail, 1}};
  for (const bool verify : {true, false})
    for (const Case& item : cases) {
      WeightReader reader(index, verify);
      std::vector<std::string> got;
      std::vector<WeightReader::Range> ranges;
      for (const auto& [offset, bytes] : item.ranges)
        got.emplace_back(static_cast<size_t>(bytes), '\x5A');
      for (size_t i = 0; i < got.size(); ++i)
        ranges.push_back({item.ranges[i].first, item.ranges[i].second, got[i].data()});
      reader.read(*big, Plane::kValues, ranges);
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_EQ(got[i], expected.substr(static_cast<size_t>(ranges[i].offset), got[i].size()));
      EXPECT_EQ(reader.bytes_read(), verify ? item.verified : item.plain);
    }
}

TEST(ModelFile, RangesOutsideThePlaneOrOutOfOrderAreRefused) {
  const TempFolder folder("model_file_order");
  write_sample(folder / "m.h5");
  const ModelIndex index = read_model_index(folder / "m.h5");
  const TensorEntry* norm = index.find("norm");
  WeightReader reader(index, true);
  char buffer[512];
  const std::vector<std::vector<WeightReader::Range>> bad = {{{380, 5, buffer}},
                                                             {{-1, 2, buffer}},
                                                             {{0, -1, buffer}},
                                                             {{8, 4, buffer}, {4, 4, buffer}},
                                                             {{0, 4, buffer}, {3, 4, buffer}}};
  for (const auto& ranges : bad)
    EXPECT_EQ(error_of([&] { reader.read(*norm, Plane::kValues, ranges); }).code(),
              ExitCode::kRuntime);
  const WeightReader::Range scale[] = {{0, 1, buffer}};
  EXPECT_EQ(error_of([&] { reader.read(*norm, Plane::kScales, scale); }).code(),
            ExitCode::kRuntime);
}

TEST(ModelFile, InterruptedWriteLeavesNothing) {
  const TempFolder folder("model_file_interrupted");
  {
    const auto shapes = sample_shapes();
    ModelWriter writer(folder / "m.h5", "glm4", sample_texts(), "f", shapes);
    write_sample_tensor(writer, shapes[0]);
    EXPECT_TRUE(std::filesystem::exists(folder / "m.h5.partial"));
    // The file under way is none that a reader takes.
    EXPECT_EQ(error_of([&] { read_model_index(folder / "m.h5.partial"); }).code(),
              ExitCode::kModelFile);
    EXPECT_EQ(error_of([&] { writer.finish(); }).code(), ExitCode::kRuntime);  // planes missing
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ModelFile, AnInterruptedWriteKeepsTheOldFile) {
  const TempFolder folder("model_file_old");
  write_sample(folder / "m.h5");
  const std::string before = read_bytes(folder / "m.h5");
  write_bytes(folder / "m.h5.partial", "left by a kill");
  { ModelWriter writer(folder / "m.h5", "glm4", {}, "f", {sample_shapes()[0]}); }
  EXPECT_TRUE(read_bytes(folder / "m.h5") == before);
  EXPECT_FALSE(std::filesystem::exists(folder / "m.h5.partial"));
}

TEST(ModelFile, WritesOutOfOrderAreRefused) {
  const TempFolder folder("model_file_misuse");
  ModelWriter writer(folder / "m.h5", "glm4", {}, "f", {sample_shapes()[0]});
  const float data[96] = {};
  EXPECT_EQ(error_of([&] { writer.write("norm", Plane::kValues, 4, data, 4); }).code(),
            ExitCode::kRuntime);
  EXPECT_EQ(error_of([&] { writer.write("norm", Plane::kValues, 0, data, 388); }).code(),
            ExitCode::kRuntime);
  EXPECT_EQ(error_of([&] { writer.write("norm", Plane::kScales, 0, data, 4); }).code(),
            ExitCode::kRuntime);
  EXPECT_EQ(error_of([&] { writer.write("other", Plane::kValues, 0, data, 4); }).code(),
            ExitCode::kRuntime);
}

TEST(ModelFile, ShapesThatCannotBeAreRefused) {
  const TempFolder folder("model_file_shapes");
  const std::vector<ModelWriter::TensorShape> bad = {
      {"a", DType::kQ40, Packing::kRows, {32}},
      {"a", DType::kQ40, Packing::kRows, {4, 33}},
      {"a", DType::kQ80, Packing::kTile16, {15, 32}},
      {"a", DType::kF32, Packing::kTile16, {16, 32}},
      {"a", DType::kF32, Packing::kRows, {}},
      {"a", DType::kF32, Packing::kRows, {1, 1, 1, 1}},
      {"a", DType::kF32, Packing::kRows, {0, 4}},
      {"a", DType::kF32, Packing::kRows, {-4}},
      {"a", DType::kF32, Packing::kRows, {int64_t{1} << 31, int64_t{1} << 31, 4}},
      {"a/b", DType::kF32, Packing::kRows, {4}},
      {"..", DType::kF32, Packing::kRows, {4}},
      {"", DType::kF32, Packing::kRows, {4}},
      {"a.scales", DType::kF32, Packing::kRows, {4}}};
  for (const auto& shape : bad)
    EXPECT_EQ(error_of([&] { ModelWriter(folder / "m.h5", "glm4", {}, "f", {shape}); }).code(),
              ExitCode::kRuntime)
        << shape.name;
  const ModelWriter::TensorShape twice = {"a", DType::kF32, Packing::kRows, {4}};
  EXPECT_EQ(error_of([&] {
              ModelWriter(folder / "m.h5", "glm4", {}, "f", {twice, twice});
            }).code(),
            ExitCode::kRuntime);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ModelFile, UnwritablePathsAreUsageErrors) {
  const TempFolder folder("model_file_paths");
  std::filesystem::create_directory(folder / "folder.h5");
  std::filesystem::create_directory(folder / "taken.h5.partial");
  std::filesystem::create_directory(folder / "other.h5.sha256");
  for (const std::string& path : {(folder / "absent/m.h5").string(),
                                  (folder / "taken.h5").string(),
                                  (folder / "other.h5").string(),
                                  (folder / "folder.h5").string(),
                                  std::string("/dev/full")}) {
    const Error error = error_of([&] { ModelWriter(path, "glm4", {}, "f", {sample_shapes()[0]}); });
    EXPECT_EQ(error.code(), ExitCode::kUsage) << path;
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  }
}

TEST(ModelFile, DiskFullIsAResourceErrorAndLeavesNothing) {
  // A limit on the size of files stands for the full disk: the first write beyond it fails.
  const TempFolder folder("model_file_full");
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t bytes : {rlim_t{1000}, rlim_t{100'000}, rlim_t{3'000'000}}) {
    const struct rlimit tight = {bytes, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
    const Error error = error_of([&] { write_sample(folder / "m.h5"); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(error.code(), ExitCode::kResources) << bytes << ": " << error.what();
    EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << bytes;
  }
  std::signal(SIGXFSZ, handler);
}

TEST(ModelFile, TenThousandTensorsOpenQuickly) {
  const TempFolder folder("model_file_many");
  std::vector<ModelWriter::TensorShape> shapes;
  for (int i = 0; i < 10'000; ++i)
    shapes.push_back({fmt::format("t{}", i), DType::kU8, Packing::kRows, {8}});
  {
    ModelWriter writer(folder / "m.h5", "glm4", {}, "f", shapes);
    for (const auto& shape : shapes) writer.write(shape.name, Plane::kValues, 0, "12345678", 8);
    writer.finish();
  }
  const std::clock_t start = std::clock();
  const ModelIndex index = read_model_index(folder / "m.h5");
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  EXPECT_EQ(index.entries.size(), shapes.size());
  RecordProperty("seconds", std::to_string(seconds));
  EXPECT_LT(seconds, 10.0);  // about 0.3 s; sanitizers and a busy machine are slower
}

}  // namespace
}  // namespace glm
