// Every known way to damage a safetensors file is refused with one line naming the file. Not judged
// at this layer: a transposed shape (the spec table of the family knows shapes), bf16 bits declared
// as F16 (both are 16 bits of anything), a file that differs between nodes (one rank reads
// checkpoints). SPDX-License-Identifier: MIT
#include <functional>

#include "tests/io/safetensors_samples.h"

namespace glm {
namespace {

struct BadFile {
  const char* name;
  std::function<std::string()> bytes;
  const char* reason;
};

void PrintTo(const BadFile& bad, std::ostream* out) { *out << bad.name; }

class BadShard : public testing::TestWithParam<BadFile> {};

TEST_P(BadShard, IsRefused) {
  const TempFolder folder(std::string("safetensors_") + GetParam().name);
  write_bytes(folder / "model.safetensors", GetParam().bytes());
  expect_bad_checkpoint(folder.path(), GetParam().reason);
}

// A case whose bytes are the header and values given.
BadFile header_case(const char* name,
                    const std::string& header,
                    size_t value_bytes,
                    const char* reason) {
  return {name, [=] { return shard(header, std::string(value_bytes, 'v')); }, reason};
}

INSTANTIATE_TEST_SUITE_P(
    Bytes,
    BadShard,
    testing::Values(
        BadFile{"empty", [] { return std::string(); }, "0 bytes"},
        BadFile{"seven_bytes", [] { return std::string(7, 'x'); }, "7 bytes"},
        BadFile{"length_max", [] { return announced(~uint64_t{0}, "{}"); }, "header of"},
        BadFile{"length_limit", [] { return announced(100'000'001, "{}"); }, "100000001"},
        BadFile{"length_beyond_file", [] { return announced(3, "{}"); }, "truncated"},
        BadFile{"length_zero", [] { return announced(0, "{}"); }, "begin with"},
        header_case("not_utf8", one("\"\xFF\"", "[]", "[0, 4]"), 4, "UTF-8"),
        header_case("bom", "\xEF\xBB\xBF{}", 0, "begin with"),
        header_case("leading_space", " {}", 0, "begin with"),
        header_case("array", "[]", 0, "begin with"),
        header_case("truncated_json", R"({"w": {"dtype": "F32")", 0, "JSON"),
        header_case("trailing_json", "{} {}", 0, "JSON"),
        header_case("trailing_nul", std::string("{}\0", 3), 0, "NUL"),
        header_case("duplicate_name",
                    std::string("{") + entry("w", "\"F32\"", "[1]", "[0, 4]") + "," +
                        entry("w", "\"F32\"", "[1]", "[4, 8]") + "}",
                    8,
                    "twice"),
        header_case("duplicate_field",
                    R"({"w": {"dtype": "F32", "dtype": "F32", "shape": [1],
                       "data_offsets": [0, 4]}})",
                    4,
                    "twice"),
        BadFile{
            "deep_nesting", [] { return shard("{\"w\":" + std::string(200'000, '[')); }, "nested"},
        header_case("metadata_number", R"({"__metadata__": {"a": 1}})", 0, "__metadata__"),
        header_case("metadata_nested", R"({"__metadata__": {"a": {}}})", 0, "__metadata__"),
        header_case("metadata_text", R"({"__metadata__": "a"})", 0, "__metadata__"),
        header_case("entry_no_object", R"({"w": 3})", 0, "expected an object"),
        header_case("no_dtype", R"({"w": {"shape": [], "data_offsets": [0, 4]}})", 4, "dtype"),
        header_case("no_shape", R"({"w": {"dtype": "F32", "data_offsets": [0, 4]}})", 4, "shape"),
        header_case("no_offsets", R"({"w": {"dtype": "F32", "shape": []}})", 4, "data_offsets"),
        header_case("shape_no_array", one("\"F32\"", "4", "[0, 16]"), 16, "array"),
        header_case("three_offsets", one("\"F32\"", "[1]", "[0, 4, 4]"), 4, "two integers")),
    [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Extents,
    BadShard,
    testing::Values(
        header_case("reversed", one("\"F32\"", "[1]", "[4, 0]"), 4, "reversed"),
        header_case("overlap",
                    std::string("{") + entry("a", "\"F32\"", "[2]", "[0, 8]") + "," +
                        entry("b", "\"F32\"", "[2]", "[4, 12]") + "}",
                    12,
                    "overlaps"),
        header_case("same_bytes_twice",
                    std::string("{") + entry("a", "\"F32\"", "[1]", "[0, 4]") + "," +
                        entry("b", "\"F32\"", "[1]", "[0, 4]") + "}",
                    4,
                    "overlaps"),
        header_case("hole",
                    std::string("{") + entry("a", "\"F32\"", "[1]", "[0, 4]") + "," +
                        entry("b", "\"F32\"", "[1]", "[8, 12]") + "}",
                    12,
                    "hole"),
        header_case("hole_at_front", one("\"F32\"", "[1]", "[4, 8]"), 8, "hole"),
        header_case("trailing_bytes", one("\"F32\"", "[1]", "[0, 4]"), 5, "1 bytes follow"),
        header_case("no_tensor_but_bytes", "{}", 3, "3 bytes follow"),
        header_case("file_too_short", one("\"F32\"", "[2]", "[0, 8]"), 7, "beyond the 7 bytes"),
        // 4194305 * 4194305 * 211106198978564 is 4 modulo 2^64.
        header_case("product_wraps",
                    one("\"U8\"", "[4194305, 4194305, 211106198978564]", "[0, 4]"),
                    4,
                    "not possible"),
        header_case(
            "bytes_wrap", one("\"F64\"", "[1152921504606846976, 2]", "[0, 0]"), 0, "not possible"),
        header_case("negative_dim", one("\"F32\"", "[-1]", "[0, 4]"), 4, "a dimension"),
        header_case("float_dim", one("\"F32\"", "[1.0]", "[0, 4]"), 4, "a dimension"),
        header_case("exponent_dim", one("\"U8\"", "[1e3]", "[0, 1000]"), 1000, "a dimension"),
        header_case("text_dim", one("\"F32\"", "[\"1\"]", "[0, 4]"), 4, "a dimension"),
        header_case("true_dim", one("\"F32\"", "[true]", "[0, 4]"), 4, "a dimension"),
        header_case("offset_2_53",
                    one("\"U8\"", "[1]", "[9007199254740993, 9007199254740994]"),
                    1,
                    "beyond"),
        header_case("offset_2_63",
                    one("\"U8\"", "[1]", "[9223372036854775808, 9223372036854775809]"),
                    1,
                    "integer from 0"),
        header_case("offset_2_64",
                    one("\"U8\"", "[1]", "[18446744073709551616, 18446744073709551617]"),
                    1,
                    "64 bits"),
        header_case("negative_offset", one("\"U8\"", "[1]", "[-1, 0]"), 1, "integer from 0"),
        header_case("float_offset", one("\"U8\"", "[1]", "[0.0, 1.0]"), 1, "integer from 0"),
        header_case("unknown_dtype", one("\"F33\"", "[1]", "[0, 4]"), 4, "dtype"),
        header_case("lower_case_dtype", one("\"f32\"", "[1]", "[0, 4]"), 4, "dtype"),
        header_case("number_dtype", one("32", "[1]", "[0, 4]"), 4, "dtype"),
        header_case("one_byte_short", one("\"F32\"", "[2]", "[0, 7]"), 7, "need 8"),
        header_case("one_byte_long", one("\"F32\"", "[2]", "[0, 9]"), 9, "need 8"),
        header_case("evil_name",
                    std::string("{") +
                        entry("a\\u0000\\u001b[2J\\nglm_infer: error: x", "\"F9\"", "[]", "[]") +
                        "}",
                    0,
                    "\\x1b[2J\\x0a"),
        BadFile{"long_name",
                [] {
                  return shard(std::string("{") +
                               entry(std::string(1'000'000, 'n'), "\"F9\"", "[]", "[]") + "}");
                },
                "nnn..."},
        BadFile{"too_many_tensors",
                [] {
                  std::string header = "{";
                  for (int i = 0; i < 300'000; ++i) header += fmt::format("\"{}\":{{}},", i);
                  return shard(header + "\"x\":{}}");
                },
                "tensors"}),
    [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace glm
