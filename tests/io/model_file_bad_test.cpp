// Model files that the HDF5 library takes but a reader must not: links, storage, types and
// attributes that the format does not have. Each is refused with one line that names the file.
// SPDX-License-Identifier: MIT
#include "tests/io/model_file_edits.h"

namespace glm {
namespace {

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
          "/weights/norm: it is not stored as one plain run"};
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
             "attributes in a heap"},
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

}  // namespace
}  // namespace glm
