// Model files that are damaged, unfinished or hostile: each is refused with one line that names the
// file, and nothing is read from it. SPDX-License-Identifier: MIT
#include <array>
#include <cstring>
#include <functional>

#include <gtest/gtest.h>
#include <hdf5.h>

#include "core/base/check.h"
#include "io/model_file.h"
#include "io/model_layout.h"
#include "tests/io/model_file_samples.h"
#include "tests/io/temp_folder.h"

namespace glm {
namespace {

using Plane = WeightReader::Plane;

// The sample without its two large tensors: a few kilobytes.
void write_small(const std::filesystem::path& path) {
  auto shapes = sample_shapes();
  shapes.resize(shapes.size() - 2);
  ModelWriter writer(path, "glm4_moe", sample_texts(), "0123456789abcdef", shapes);
  for (const auto& shape : shapes) write_sample_tensor(writer, shape);
  writer.finish();
}

Error read_error(const std::filesystem::path& path) {
  try {
    read_model_index(path);
  } catch (const Error& error) {
    return error;
  }
  return {ExitCode::kOk, "accepted"};
}

void expect_bad(const std::filesystem::path& path, const std::string& reason) {
  const Error error = read_error(path);
  const std::string message = error.what();
  EXPECT_EQ(error.code(), ExitCode::kModelFile) << message;
  EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
  EXPECT_NE(message.find(reason), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

// Changes a file through the library.
void edit(const std::filesystem::path& path, const std::function<void(hid_t)>& change) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, access);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
  H5Pclose(access);
}

void put_dataset(hid_t file,
                 const char* name,
                 hid_t type,
                 const std::vector<hsize_t>& dims,
                 hid_t plan = H5P_DEFAULT) {
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
  ASSERT_GE(data, 0) << name;
  H5Dclose(data);
  H5Sclose(space);
}

void replace_norm(hid_t file, hid_t type, const std::vector<hsize_t>& dims, hid_t plan) {
  H5Ldelete(file, "/weights/norm", H5P_DEFAULT);
  put_dataset(file, "/weights/norm", type, dims, plan);
}

void put_attribute(hid_t file, const char* name, hid_t type, const void* value) {
  if (H5Aexists(file, name) > 0) H5Adelete(file, name);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(attribute, 0) << name;
  ASSERT_GE(H5Awrite(attribute, type, value), 0);
  H5Aclose(attribute);
  H5Sclose(space);
}

void put_text_attribute(hid_t file, const char* name, const std::string& value) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, value.size());
  put_attribute(file, name, type, value.data());
  H5Tclose(type);
}

struct Edit {
  const char* name;
  std::function<void(hid_t)> change;
  const char* reason;
};

void PrintTo(const Edit& item, std::ostream* out) { *out << item.name; }

class EditedFile : public testing::TestWithParam<Edit> {};

TEST_P(EditedFile, IsRefused) {
  const TempFolder folder(std::string("model_edit_") + GetParam().name);
  write_small(folder / "m.h5");
  write_small(folder / "other.h5");
  ASSERT_NO_FATAL_FAILURE(edit(folder / "m.h5", GetParam().change));
  testing::internal::CaptureStderr();
  expect_bad(folder / "m.h5", GetParam().reason);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

Edit link_case(const char* name, const std::function<void(hid_t)>& change, const char* reason) {
  return {name, change, reason};
}

INSTANTIATE_TEST_SUITE_P(
    Links,
    EditedFile,
    testing::Values(
        link_case(
            "soft_link",
            [](hid_t f) { H5Lcreate_soft("/weights/norm", f, "/weights/x", 0, 0); },
            "soft or external link"),
        link_case(
            "soft_link_cycle",
            [](hid_t f) {
              H5Ldelete(f, "/index", H5P_DEFAULT);
              H5Lcreate_soft("/index", f, "/index", 0, 0);
            },
            "soft or external link"),
        link_case(
            "soft_link_to_text",
            [](hid_t f) {
              H5Lmove(f, "/texts/config.json", f, "/texts/real", 0, 0);
              H5Lcreate_soft("real", f, "/texts/config.json", 0, 0);
            },
            "soft or external link"),
        link_case(
            "external_link",
            [](hid_t f) {
              H5Ldelete(f, "/weights/norm", H5P_DEFAULT);
              H5Lcreate_external("other.h5", "/weights/norm", f, "/weights/norm", 0, 0);
            },
            "soft or external link"),
        link_case(
            "external_group",
            [](hid_t f) {
              H5Ldelete(f, "/weights", H5P_DEFAULT);
              H5Lcreate_external("other.h5", "/weights", f, "/weights", 0, 0);
            },
            "soft or external link"),
        link_case(
            "hard_link_cycle",
            [](hid_t f) { H5Lcreate_hard(f, "/weights", f, "/weights/loop", 0, 0); },
            "members"),
        link_case(
            "group_for_dataset",
            [](hid_t f) {
              H5Ldelete(f, "/weights/norm", H5P_DEFAULT);
              H5Lcreate_hard(f, "/", f, "/weights/norm", 0, 0);
            },
            "norm"),
        link_case(
            "dataset_for_group",
            [](hid_t f) {
              H5Ldelete(f, "/weights", H5P_DEFAULT);
              H5Lcreate_hard(f, "/index", f, "/weights", 0, 0);
            },
            "weights"),
        link_case(
            "one_dataset_by_two_names",
            [](hid_t f) {
              H5Ldelete(f, "/weights/bytes", H5P_DEFAULT);
              H5Lcreate_hard(f, "/weights/ids", f, "/weights/bytes", 0, 0);
            },
            "bytes"),
        link_case(
            "missing_dataset",
            [](hid_t f) { H5Ldelete(f, "/weights/brain", 0); },
            "brain is missing"),
        link_case(
            "missing_weights", [](hid_t f) { H5Ldelete(f, "/weights", 0); }, "missing"),
        link_case(
            "missing_index", [](hid_t f) { H5Ldelete(f, "/index", 0); }, "index is missing"),
        link_case(
            "missing_checksums", [](hid_t f) { H5Ldelete(f, "/checksums", 0); }, "missing"),
        link_case(
            "missing_text",
            [](hid_t f) { H5Ldelete(f, "/texts/config.json", 0); },
            "index is damaged"),
        link_case(
            "extra_dataset",
            [](hid_t f) { put_dataset(f, "/weights/zzz", H5T_STD_U8LE, {4}); },
            "members"),
        // The limit of /weights (200,000) is the same check with another number.
        link_case(
            "crowded_root",
            [](hid_t f) {
              for (int i = 0; i < 70; ++i)
                H5Lcreate_hard(f, "/index", f, fmt::format("x{}", i).c_str(), 0, 0);
            },
            "more than 64")),
    [](const auto& param) { return std::string(param.param.name); });

// Replaces /weights/norm ([96] f32) by a dataset of another storage plan.
Edit storage_case(const char* name, const std::function<void(hid_t)>& set_plan) {
  return {name,
          [set_plan](hid_t file) {
            const hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
            set_plan(plan);
            replace_norm(file, H5T_IEEE_F32LE, {96}, plan);
            H5Pclose(plan);
          },
          "norm is not stored as one plain run"};
}

void chunk(hid_t plan) {
  const hsize_t size = 32;
  H5Pset_chunk(plan, 1, &size);
}

Edit type_case(const char* name, const std::function<hid_t()>& make_type) {
  return {name,
          [make_type](hid_t file) {
            const hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
            H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY);
            replace_norm(file, make_type(), {96}, plan);
            H5Pclose(plan);
          },
          "element type"};
}

INSTANTIATE_TEST_SUITE_P(
    Datasets,
    EditedFile,
    testing::Values(storage_case("chunked", chunk),
                    storage_case("gzip",
                                 [](hid_t plan) {
                                   chunk(plan);
                                   H5Pset_deflate(plan, 1);
                                 }),
                    storage_case("unknown_filter",
                                 [](hid_t plan) {
                                   chunk(plan);
                                   H5Pset_filter(plan, 31999, H5Z_FLAG_OPTIONAL, 0, nullptr);
                                 }),
                    storage_case("compact", [](hid_t plan) { H5Pset_layout(plan, H5D_COMPACT); }),
                    storage_case("external_storage",
                                 [](hid_t plan) { H5Pset_external(plan, "/etc/passwd", 0, 384); }),
                    storage_case("virtual",
                                 [](hid_t plan) {
                                   const hsize_t size = 96;
                                   const hid_t space = H5Screate_simple(1, &size, nullptr);
                                   H5Pset_virtual(plan, space, "other.h5", "/weights/norm", space);
                                   H5Sclose(space);
                                 }),
                    type_case("f64", [] { return H5T_IEEE_F64LE; }),
                    type_case("big_endian", [] { return H5T_IEEE_F32BE; }),
                    type_case("integers", [] { return H5T_STD_I32LE; }),
                    type_case("compound",
                              [] {
                                const hid_t type = H5Tcreate(H5T_COMPOUND, 4);
                                H5Tinsert(type, "f", 0, H5T_IEEE_F32LE);
                                return type;
                              }),
                    type_case("vlen", [] { return H5Tvlen_create(H5T_IEEE_F32LE); }),
                    type_case("reference", [] { return H5T_STD_REF_OBJ; }),
                    Edit{"vlen_text",
                         [](hid_t f) {
                           H5Ldelete(f, "/texts/config.json", 0);
                           const hid_t type = H5Tcopy(H5T_C_S1);
                           H5Tset_size(type, H5T_VARIABLE);
                           put_dataset(f, "/texts/config.json", type, {1});
                           H5Tclose(type);
                         },
                         "element type"},
                    Edit{"not_allocated",
                         [](hid_t f) { replace_norm(f, H5T_IEEE_F32LE, {96}, H5P_DEFAULT); },
                         "does not lie inside"},
                    Edit{"dims_2_60",
                         [](hid_t f) {
                           replace_norm(f, H5T_IEEE_F32LE, {hsize_t{1} << 60}, H5P_DEFAULT);
                         },
                         "does not lie inside"},
                    Edit{"dims_overflow",
                         [](hid_t f) {
                           H5Ldelete(f, "/index", 0);
                           const hsize_t half = hsize_t{1} << 31;
                           put_dataset(f, "/index", H5T_STD_U8LE, {half, half - 1});
                         },
                         "index"},
                    Edit{"dims_0",
                         [](hid_t f) { replace_norm(f, H5T_IEEE_F32LE, {0}, H5P_DEFAULT); },
                         "does not lie inside"},
                    Edit{"rank_32",
                         [](hid_t f) {
                           const hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
                           H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY);
                           std::vector<hsize_t> dims(32, 1);
                           dims[31] = 96;
                           replace_norm(f, H5T_IEEE_F32LE, dims, plan);
                           H5Pclose(plan);
                         },
                         "norm is not where"},
                    Edit{"scalar",
                         [](hid_t f) {
                           H5Ldelete(f, "/weights/norm", 0);
                           const hid_t space = H5Screate(H5S_SCALAR);
                           H5Dclose(H5Dcreate2(f, "/weights/norm", H5T_IEEE_F32LE, space, 0, 0, 0));
                           H5Sclose(space);
                         },
                         "norm has no dims"}),
    [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Attributes,
    EditedFile,
    testing::Values(
        Edit{"newer_schema",
             [](hid_t f) { put_text_attribute(f, "schema_version", "999.0"); },
             "schema_version 999.0 is newer"},
        Edit{"schema_text",
             [](hid_t f) { put_text_attribute(f, "schema_version", "one"); },
             "MAJOR.MINOR"},
        Edit{"schema_zero",
             [](hid_t f) { put_text_attribute(f, "schema_version", "0.9"); },
             "MAJOR.MINOR"},
        Edit{"schema_number",
             [](hid_t f) {
               const uint32_t one = 1;
               put_attribute(f, "schema_version", H5T_STD_U32LE, &one);
             },
             "not text"},
        Edit{"other_format",
             [](hid_t f) { put_text_attribute(f, "format", "keras\n"); },
             "keras\\x0a"},
        Edit{"no_format", [](hid_t f) { H5Adelete(f, "format"); }, "format is missing"},
        Edit{"no_complete", [](hid_t f) { H5Adelete(f, "complete"); }, "complete is missing"},
        Edit{"not_complete",
             [](hid_t f) {
               const uint32_t zero = 0;
               put_attribute(f, "complete", H5T_STD_U32LE, &zero);
             },
             "never completed"},
        Edit{"complete_text",
             [](hid_t f) { put_text_attribute(f, "complete", "1"); },
             "not an unsigned integer"},
        Edit{"wrong_checksum",
             [](hid_t f) {
               const uint32_t value = 12345;
               put_attribute(f, "index_crc32c", H5T_STD_U32LE, &value);
             },
             "index is damaged"},
        Edit{"other_architecture",
             [](hid_t f) { put_text_attribute(f, "architecture", "llama"); },
             "index is damaged"},
        Edit{"large_attribute",
             [](hid_t f) { put_text_attribute(f, "architecture", std::string(10'000'000, 'x')); },
             "not text of a fixed length"},
        Edit{"vlen_attribute",
             [](hid_t f) {
               const hid_t type = H5Tcopy(H5T_C_S1);
               H5Tset_size(type, H5T_VARIABLE);
               const char* text = "glm4_moe";
               put_attribute(f, "architecture", type, &text);
               H5Tclose(type);
             },
             "not text of a fixed length"}),
    [](const auto& param) { return std::string(param.param.name); });

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
