// Checkpoints in safetensors form: good ones read back; bad indexes, shards that are no files and
// random damage are refused. SPDX-License-Identifier: MIT
#include <cmath>
#include <functional>

#include <sys/stat.h>

#include "tests/io/safetensors_samples.h"

namespace glm {
namespace {

// Two shards with an index: a in the first, b in the second.
void write_shards(const TempFolder& folder,
                  const std::string& map = R"({"a": "1.safetensors", "b": "2.safetensors"})") {
  write_bytes(folder / "1.safetensors",
              shard(std::string("{") + entry("a", "\"F32\"", "[1]", "[0, 4]") + "}", "aaaa"));
  write_bytes(folder / "2.safetensors",
              shard(std::string("{") + entry("b", "\"U8\"", "[2]", "[0, 2]") + "}", "bb"));
  write_bytes(folder / "model.safetensors.index.json",
              std::string("{\"weight_map\": ") + map + "}");
}

TEST(Checkpoint, IndexWinsOverTheSingleFile) {
  const TempFolder folder("safetensors_index");
  write_shards(folder);
  write_bytes(folder / "model.safetensors", "not even a header");
  const Checkpoint checkpoint(folder.path());
  ASSERT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.find("a")->file, "1.safetensors");
  EXPECT_EQ(checkpoint.find("b")->shape, std::vector<int64_t>{2});
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  EXPECT_EQ(checkpoint.total_bytes(), 6);
}

TEST(Checkpoint, AnyOnlyFileServesAndLinksAreFollowed) {
  const TempFolder folder("safetensors_only");
  const TempFolder blobs("safetensors_blobs");
  write_bytes(blobs / "blob", shard(one("\"F32\"", "[1]", "[0, 4]"), "aaaa"));
  std::filesystem::create_symlink(blobs / "blob", folder / "weights.safetensors");
  EXPECT_EQ(Checkpoint(folder.path()).find("w")->bytes, 4);
  std::filesystem::create_symlink(blobs / "blob", folder / "more.safetensors");
  expect_bad_checkpoint(folder.path(), "2 *.safetensors files");
}

TEST(Checkpoint, FoldersWithoutWeights) {
  const TempFolder folder("safetensors_none");
  expect_bad_checkpoint(folder.path(), "no weights");
  EXPECT_EQ(open_error(folder / "absent").code(), ExitCode::kUsage);
  write_bytes(folder / "file", "x");
  EXPECT_EQ(open_error(folder / "file").code(), ExitCode::kUsage);
}

TEST(Checkpoint, BadIndexes) {
  const TempFolder folder("safetensors_bad_index");
  const auto map_is_bad = [&](const std::string& map, const std::string& reason) {
    write_shards(folder, map);
    expect_bad_checkpoint(folder.path(), reason);
  };
  map_is_bad("{}", "empty");
  map_is_bad("[]", "object");
  map_is_bad(R"({"a": 1})", "plain name");
  for (const std::string name : {"../../etc/passwd", "/etc/passwd", "..", ".", "", "a/b", "a\\\\b"})
    map_is_bad(R"({"a": ")" + name + "\"}", "plain name");
  map_is_bad(R"({"a": "1.safetensors\u0000"})", "plain name");
  map_is_bad(R"({"a": "3.safetensors"})", "cannot open");
  map_is_bad(R"({"a": "1.safetensors", "a": "2.safetensors"})", "twice");
  map_is_bad(R"({"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"})",
             "\"c\" is not in 2.safetensors");
  map_is_bad(R"({"a": "2.safetensors", "b": "1.safetensors"})", "does not say so");
  write_shards(folder);
  write_bytes(folder / "2.safetensors",
              shard(std::string("{") + entry("a", "\"U8\"", "[2]", "[0, 2]") + "}", "bb"));
  expect_bad_checkpoint(folder.path(), "\"a\" is in 1.safetensors and in 2.safetensors");
  write_shards(folder);
  write_bytes(folder / "2.safetensors",
              shard(std::string("{") + entry("b", "\"U8\"", "[1]", "[0, 1]") + "," +
                        entry("extra", "\"U8\"", "[1]", "[1, 2]") + "}",
                    "bb"));
  expect_bad_checkpoint(folder.path(),
                        "\"extra\" is in 2.safetensors but the index does not say so");
  write_bytes(folder / "model.safetensors.index.json", "{\"weight_map\": 3}");
  expect_bad_checkpoint(folder.path(), "weight_map");
  write_bytes(folder / "model.safetensors.index.json", "[]");
  expect_bad_checkpoint(folder.path(), "weight_map");
}

TEST(Checkpoint, ShardsThatAreNoRegularFiles) {
  const TempFolder folder("safetensors_no_file");
  const auto replaced = [&](const std::function<void(const std::filesystem::path&)>& make) {
    write_shards(folder);
    std::filesystem::remove_all(folder / "2.safetensors");
    make(folder / "2.safetensors");
    expect_bad_checkpoint(folder.path(), "2.safetensors");
    std::filesystem::remove_all(folder / "2.safetensors");
  };
  replaced([](const auto& path) { ::mkfifo(path.c_str(), 0600); });
  replaced([](const auto& path) { std::filesystem::create_directory(path); });
  replaced([](const auto& path) { std::filesystem::create_symlink(path.filename(), path); });
  replaced([](const auto& path) { std::filesystem::create_symlink("/dev/zero", path); });
  replaced([](const auto& path) { std::filesystem::create_symlink("absent", path); });
  write_shards(folder);
  std::filesystem::remove(folder / "model.safetensors.index.json");
  std::filesystem::create_symlink("absent", folder / "model.safetensors.index.json");
  expect_bad_checkpoint(folder.path(), "index.json");  // a dangling index is not the absence of one
}

TEST(Checkpoint, EmptyAndScalarTensorsMetadataAndSpacesAreFine) {
  const TempFolder folder("safetensors_odd");
  const std::string header = R"({"__metadata__": {"format": "pt"}, )" +
                             entry("none", "\"F32\"", "[0, 5]", "[0, 0]") + "," +
                             entry("scalar", "\"F32\"", "[]", "[0, 4]") + "," +
                             entry("also_none", "\"I64\"", "[0]", "[4, 4]") + "," +
                             entry("bool", "\"BOOL\"", "[3]", "[4, 7]") + "}     ";
  write_bytes(folder / "model.safetensors", shard(header, "1234567"));
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(checkpoint.tensors().size(), 4u);
  EXPECT_EQ(checkpoint.find("none")->bytes, 0);
  EXPECT_EQ(checkpoint.find("scalar")->bytes, 4);
  EXPECT_TRUE(checkpoint.find("scalar")->shape.empty());
  checkpoint.read_f32(*checkpoint.find("none"), 0, 0, nullptr);
  write_bytes(folder / "model.safetensors", shard("{}"));
  EXPECT_TRUE(Checkpoint(folder.path()).tensors().empty());
}

TEST(Checkpoint, ValuesOfEveryFloatType) {
  const TempFolder folder("safetensors_values");
  const float floats[] = {1.5f, -0.0f, 3e38f};
  const uint16_t halves[] = {0x3C00, 0xC500, 0x7E00};  // 1, -5, NaN
  std::string brains(2 * 200'000, '\0');               // more than one chunk of the reader
  for (size_t i = 0; i < 200'000; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    std::memcpy(&brains[2 * i], &bits, 2);
  }
  const std::string values = std::string(reinterpret_cast<const char*>(floats), 12) +
                             std::string(reinterpret_cast<const char*>(halves), 6) + brains;
  write_bytes(folder / "model.safetensors",
              shard(std::string("{") + entry("f", "\"F32\"", "[3]", "[0, 12]") + "," +
                        entry("h", "\"F16\"", "[3]", "[12, 18]") + "," +
                        entry("b", "\"BF16\"", "[200000]", "[18, 400018]") + "}",
                    values));
  const Checkpoint checkpoint(folder.path());
  float out[3];
  checkpoint.read_f32(*checkpoint.find("f"), 0, 3, out);
  EXPECT_EQ(std::memcmp(out, floats, sizeof out), 0);
  checkpoint.read_f32(*checkpoint.find("h"), 0, 3, out);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[1], -5.0f);
  EXPECT_TRUE(std::isnan(out[2]));  // values are nobody's business here
  checkpoint.read_f32(*checkpoint.find("h"), 1, 1, out);
  EXPECT_EQ(out[0], -5.0f);
  std::vector<float> many(199'999);
  checkpoint.read_f32(*checkpoint.find("b"), 1, 199'999, many.data());
  for (size_t i = 0; i < many.size(); ++i) {
    const float expected = bf16_to_f32(static_cast<uint16_t>(i + 1));
    ASSERT_EQ(std::memcmp(&many[i], &expected, 4), 0) << i;
  }
  EXPECT_THROW(checkpoint.read_f32(*checkpoint.find("f"), 1, 3, out), Error);
  EXPECT_THROW(checkpoint.read_f32(*checkpoint.find("f"), -1, 1, out), Error);
}

TEST(Checkpoint, OtherTypesAndLostBytesAreErrorsOfReading) {
  const TempFolder folder("safetensors_lost");
  write_bytes(folder / "model.safetensors",
              shard(std::string("{") + entry("i", "\"I32\"", "[1]", "[0, 4]") + "," +
                        entry("f", "\"F32\"", "[4]", "[4, 20]") + "}",
                    std::string(20, 'x')));
  const Checkpoint checkpoint(folder.path());
  std::filesystem::resize_file(folder / "model.safetensors",
                               std::filesystem::file_size(folder / "model.safetensors") - 3);
  float out[4];
  checkpoint.read_f32(*checkpoint.find("f"), 0, 3, out);
  for (const std::string name : {"i", "f"}) {
    try {
      checkpoint.read_f32(*checkpoint.find(name), 0, name == "i" ? 1 : 4, out);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kModelFile);
      EXPECT_NE(std::string(error.what()).find(std::string("tensor \"") + name + "\""),
                std::string::npos);
      EXPECT_NE(std::string(error.what()).find(name == "i" ? "I32" : "shorter"), std::string::npos);
    }
  }
}

TEST(Checkpoint, FingerprintFollowsNamesShapesTypesAndOffsets) {
  const TempFolder folder("safetensors_print");
  const auto print = [&](const std::string& header, const std::string& values) {
    write_bytes(folder / "model.safetensors", shard(header, values));
    return Checkpoint(folder.path()).fingerprint();
  };
  const std::string base = print(one("\"F32\"", "[2, 1]", "[0, 8]"), "12345678");
  EXPECT_EQ(base.size(), 16u);
  EXPECT_EQ(base, print(one("\"F32\"", "[2, 1]", "[0, 8]"), "abcdefgh"));
  EXPECT_NE(base, print(one("\"F32\"", "[1, 2]", "[0, 8]"), "12345678"));
  EXPECT_NE(base, print(one("\"I32\"", "[2, 1]", "[0, 8]"), "12345678"));
  EXPECT_NE(base,
            print(std::string("{") + entry("v", "\"F32\"", "[2, 1]", "[0, 8]") + "}", "12345678"));
}

}  // namespace
}  // namespace glm
