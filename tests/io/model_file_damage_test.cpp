// Model files whose bytes are damaged, cut, unfinished or forged: refused, or read unharmed.
// SPDX-License-Identifier: MIT
#include "io/model_layout.h"
#include "tests/io/model_file_edits.h"

namespace glm {
namespace {

using Plane = WeightReader::Plane;

// Changes the index text and its checksum, as an attacker would who knows the format.
void reseal(const std::filesystem::path& path, const std::string& from, const std::string& to) {
  ModelIndex index = read_model_index(path);
  std::string text = index_text(index);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  const uint32_t checksum = index_checksum(index, text);
  edit(path, [&](hid_t file) {
    H5Ldelete(file, "/index", H5P_DEFAULT);
    const hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY);
    put_dataset(file, "/index", H5T_STD_U8LE, {text.size()}, plan);
    H5Pclose(plan);
    const hid_t data = H5Dopen2(file, "/index", H5P_DEFAULT);
    H5Dwrite(data, H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data());
    H5Dclose(data);
    put_attribute(file, "index_crc32c", H5T_STD_U32LE, &checksum);
  });
}

TEST(ModelFileBad, IndexesThatLieAreCaughtThoughTheirChecksumHolds) {
  const TempFolder folder("model_reseal");
  write_small(folder / "good.h5");
  const ModelIndex good = read_model_index(folder / "good.h5");
  const auto offset = [&](const char* name) {
    return fmt::format("\"offset\": {},", good.find(name)->values_offset);
  };
  const std::string end = fmt::format("\"offset\": {},", good.file_bytes + 1'000'000);
  const std::string huge = "\"offset\": 9223372036854775800,";
  struct Lie {
    std::string from, to, reason;
  };
  const std::vector<Lie> lies = {
      {offset("ids"), offset("bytes"), "overlap"},
      {offset("ids"), end, "/index: ids: offset: expected"},
      {offset("ids"), huge, "/index: ids: offset: expected"},
      {offset("ids"), "\"offset\": -4,", "offset: expected"},
      {offset("ids"), "\"offset\": 0,", "ids is not where"},
      {offset("ids"), "\"offset\": 18446744073709551616,", "64 bits"},
      {offset("ids"), "\"Offset\": 0,", "offset: expected"},
      {"\"dims\": [11]", "\"dims\": [12]", "bytes where dims"},
      {"\"dims\": [11]", "\"dims\": [4611686018427387904, 4, 11]", "is no size"},
      {"\"dims\": [11]", "\"dims\": [1099511627776, 1099511627776, 11]", "not possible"},
      {"\"dims\": [11]", "\"dims\": []", "1 to 3 positive"},
      {"\"dims\": [11]", "\"dims\": [0]", "1 to 3 positive"},
      {"\"dims\": [11]", "\"dims\": [1, 1, 1, 11]", "dims must be"},
      {"\"dims\": [11]", "\"dims\": [1, 11]", "ids is not where"},
      {"\"dtype\": \"i32\"", "\"dtype\": \"i64\"", "unknown dtype"},
      {"\"dtype\": \"i32\"", "\"dtype\": \"f32\"", "element type"},
      {"\"packing\": \"tile16\"", "\"packing\": \"tile99\"", "packing"},
      {"\"packing\": \"tile16\"", "\"packing\": \"rows\"", "is not where"},
      {"\"name\": \"ids\"", "\"name\": \"idz\"", "idz is missing"},
      {"\"name\": \"ids\"", "\"name\": \"../index\"", "no name of a tensor"},
      {"\"name\": \"ids\"", "\"name\": \"aaa\"", "order of names"},
      {"\"first_block\": 1}", "\"first_block\": 7}", "first_block is 7"},
      {"\"block_bytes\": 1048576", "\"block_bytes\": 1", "block_bytes"},
      {"\"tensors\": [", "\"tensors\": 3, \"x\": [", "tensors must be"},
      {"{\"block_bytes\"", "[{\"block_bytes\"", "JSON"}};
  for (const Lie& lie : lies) {
    std::filesystem::copy_file(
        folder / "good.h5", folder / "m.h5", std::filesystem::copy_options::overwrite_existing);
    ASSERT_NO_FATAL_FAILURE(reseal(folder / "m.h5", lie.from, lie.to));
    expect_bad(folder / "m.h5", lie.reason);
  }
  std::filesystem::copy_file(
      folder / "good.h5", folder / "m.h5", std::filesystem::copy_options::overwrite_existing);
  ASSERT_NO_FATAL_FAILURE(reseal(folder / "m.h5", "ids", "ids"));
  EXPECT_EQ(read_error(folder / "m.h5").code(), ExitCode::kOk);  // the seal itself is right
}

TEST(ModelFileBad, EveryBitOfTheSuperblockMatters) {
  const TempFolder folder("model_superblock");
  write_small(folder / "good.h5");
  const std::string good = read_bytes(folder / "good.h5");
  for (size_t bit = 0; bit < 48 * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    write_bytes(folder / "m.h5", bytes);
    expect_bad(folder / "m.h5", "");
  }
}

TEST(ModelFileBad, TruncatedOrExtendedAnywhere) {
  const TempFolder folder("model_truncated");
  write_sample(folder / "m.h5");
  write_bytes(folder / "long.h5", read_bytes(folder / "m.h5") + "x");
  expect_bad(folder / "long.h5", "truncated or extended");
  const auto size = static_cast<int64_t>(std::filesystem::file_size(folder / "m.h5"));
  for (int64_t at = (size - 1) / 4096 * 4096; at >= 0; at -= 4096) {
    std::filesystem::resize_file(folder / "m.h5", static_cast<uintmax_t>(at));
    expect_bad(folder / "m.h5", at == 0 ? "not an HDF5 file" : "truncated");
  }
  for (const uintmax_t at : {47, 12, 8, 7, 1}) {
    std::filesystem::resize_file(folder / "m.h5", at);
    expect_bad(folder / "m.h5", at >= 8 ? "truncated" : "not an HDF5 file");
  }
}

TEST(ModelFileBad, PathsThatAreNoFiles) {
  const TempFolder folder("model_paths");
  EXPECT_EQ(read_error(folder / "absent.h5").code(), ExitCode::kUsage);
  EXPECT_EQ(read_error(folder / "absent/m.h5").code(), ExitCode::kUsage);
  expect_bad(folder.path(), "not a regular file");
  expect_bad("/dev/zero", "not a regular file");
  write_bytes(folder / "text.h5", "hello");
  expect_bad(folder / "text.h5", "not an HDF5 file");
}

TEST(ModelFileBad, UserBlocksAndOldSuperblocks) {
  const TempFolder folder("model_foreign");
  const hid_t plan = H5Pcreate(H5P_FILE_CREATE);
  H5Fclose(H5Fcreate((folder / "old.h5").c_str(), H5F_ACC_TRUNC, plan, H5P_DEFAULT));
  expect_bad(folder / "old.h5", "superblock version 0");
  H5Pset_userblock(plan, 4096);
  H5Fclose(H5Fcreate((folder / "user.h5").c_str(), H5F_ACC_TRUNC, plan, H5P_DEFAULT));
  expect_bad(folder / "user.h5", "no signature");
  H5Pclose(plan);
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Fclose(H5Fcreate((folder / "empty.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access));
  H5Pclose(access);
  expect_bad(folder / "empty.h5", "not a model file");
}

TEST(ModelFileBad, OpenForWritingElsewhere) {
  const TempFolder folder("model_writer_open");
  write_small(folder / "m.h5");
  edit(folder / "m.h5", [&](hid_t) { expect_bad(folder / "m.h5", "open for writing"); });
  EXPECT_EQ(read_error(folder / "m.h5").code(), ExitCode::kOk);
}

TEST(ModelFileBad, DamagedBlockIsNamed) {
  const TempFolder folder("model_block");
  write_sample(folder / "m.h5");
  const ModelIndex index = read_model_index(folder / "m.h5");
  const TensorEntry& head = *index.find("head");
  std::string bytes = read_bytes(folder / "m.h5");
  const auto damaged = static_cast<size_t>(head.values_offset + index.block_bytes + 17);
  bytes[damaged] = static_cast<char>(bytes[damaged] ^ 1);
  const auto scale = static_cast<size_t>(head.scales_offset + head.scales_bytes - 1);
  bytes[scale] = static_cast<char>(bytes[scale] ^ 0x80);
  write_bytes(folder / "m.h5", bytes);
  EXPECT_EQ(read_error(folder / "m.h5").code(), ExitCode::kOk);  // the index is not concerned
  const auto read = [&](bool verify, Plane plane, int64_t offset, int64_t count) {
    std::string out(static_cast<size_t>(count), '\0');
    const WeightReader::Range range[] = {{offset, count, out.data()}};
    try {
      WeightReader(index, verify).read(head, plane, range);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kModelFile);
      return std::string(error.what());
    }
    return std::string("read");
  };
  EXPECT_EQ(read(true, Plane::kValues, 0, index.block_bytes), "read");
  const std::string whole = read(true, Plane::kValues, 0, head.values_bytes);
  EXPECT_NE(whole.find("dataset head: block 1 "), std::string::npos) << whole;
  EXPECT_TRUE(whole.starts_with(index.path)) << whole;
  // One byte of the block is wanted, another one is damaged.
  EXPECT_NE(read(true, Plane::kValues, head.values_bytes - 1, 1).find("damaged"),
            std::string::npos);
  EXPECT_NE(read(true, Plane::kScales, 0, 1).find("dataset head.scales: block 0 "),
            std::string::npos);
  EXPECT_EQ(read(false, Plane::kValues, 0, head.values_bytes), "read");
  WeightReader open(index, false);
  std::filesystem::resize_file(folder / "m.h5", static_cast<uintmax_t>(head.values_offset + 10));
  char out[20];
  const WeightReader::Range lost[] = {{0, 20, out}};
  EXPECT_THROW(open.read(head, Plane::kValues, lost), Error);
  EXPECT_NE(read(true, Plane::kValues, 0, 1).find("replaced or truncated"), std::string::npos);
}

// Everything in the file, or the error.
std::string contents(const std::filesystem::path& path) {
  ModelIndex index = read_model_index(path);
  index.path.clear();
  std::string all = index.serialized();
  index.path = path.string();
  WeightReader reader(index, true);
  for (const TensorEntry& entry : index.entries)
    for (const Plane plane : {Plane::kValues, Plane::kScales}) {
      std::string out(
          static_cast<size_t>(plane == Plane::kValues ? entry.values_bytes : entry.scales_bytes),
          '\0');
      const WeightReader::Range range[] = {{0, static_cast<int64_t>(out.size()), out.data()}};
      reader.read(entry, plane, range);
      all += out;
    }
  return all;
}

// Whatever bytes are changed: the file is refused, or nothing that is read from it has changed.
TEST(ModelFileBad, RandomDamageIsNeverSilent) {
  const TempFolder folder("model_fuzz");
  write_small(folder / "m.h5");
  const std::string good = read_bytes(folder / "m.h5");
  const std::string expected = contents(folder / "m.h5");
  uint64_t state = 20240607;
  const auto random = [&state](uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
  };
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    for (uint64_t change = 0; change <= random(4); ++change) {
      const size_t at = random(bytes.size());
      bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 + random(255)));
    }
    write_bytes(folder / "m.h5", bytes);
    try {
      ASSERT_TRUE(contents(folder / "m.h5") == expected) << "round " << round;
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.code(), ExitCode::kModelFile) << error.what();
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace glm
