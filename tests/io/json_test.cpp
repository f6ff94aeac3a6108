// JSON from untrusted texts: accepted values, and the limits. SPDX-License-Identifier: MIT
#include "io/json.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/io/temp_folder.h"

namespace glm {
namespace {

struct BadText {
  const char* name;
  std::string text;
  const char* reason;  // part of the message
};

void PrintTo(const BadText& bad, std::ostream* out) { *out << bad.name; }

class JsonBad : public testing::TestWithParam<BadText> {};

TEST_P(JsonBad, BothParsersRefuseNamingTheSource) {
  const auto parse = [&](bool ordered) {
    try {
      if (ordered)
        parse_ordered_json(GetParam().text, "some\nfile", ExitCode::kModelFile);
      else
        parse_json(GetParam().text, "some\nfile", ExitCode::kModelFile);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kModelFile);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  for (const bool ordered : {false, true}) {
    const std::string message = parse(ordered);
    EXPECT_TRUE(message.starts_with("some\\x0afile: ")) << message;
    EXPECT_NE(message.find(GetParam().reason), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 700u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases,
    JsonBad,
    testing::Values(BadText{"empty", "", "at byte 0"},
                    BadText{"truncated", "{\"a\": [1, 2", "at byte 11"},
                    BadText{"trailing", "{} x", "at byte 4"},
                    BadText{"two_values", "{} {}", "at byte 4"},
                    BadText{"bom", "\xEF\xBB\xBF{}", "byte order mark"},
                    BadText{"nul_then_more", std::string("{}\0{", 4), "NUL at byte 2"},
                    BadText{"nul_in_string", std::string("\"\0\"", 3), "NUL at byte 1"},
                    BadText{"not_utf8", "[\"\xC3\x28\"]", "UTF-8"},
                    BadText{"overlong", "[\"\xC0\xAF\"]", "UTF-8"},
                    BadText{"utf8_surrogate", "[\"\xED\xA0\x80\"]", "UTF-8"},
                    BadText{"lone_surrogate", "[\"\\ud800\"]", "surrogate"},
                    BadText{"control_byte", "[\"\x1B[31m\"]", "control character"},
                    BadText{"duplicate", "{\"a\": 1, \"b\": 2, \"a\": 3}", "\"a\" appears twice"},
                    BadText{"duplicate_inside", "[{\"k\": {\"\": 1, \"\": 2}}]", "appears twice"},
                    BadText{"beyond_uint64", "[18446744073709551616]", "does not fit 64 bits"},
                    BadText{"below_int64", "[-9223372036854775809]", "does not fit 64 bits"},
                    BadText{"long_integer", "[" + std::string(300, '9') + "]", "64 bits"},
                    BadText{"beyond_double", "[1e999]", "overflow"},
                    BadText{"nan", "[NaN]", "invalid literal"},
                    BadText{"hex", "[0x10]", "at byte"},
                    BadText{"comment", "[1] // one", "at byte"},
                    BadText{"single_quotes", "{'a': 1}", "at byte"},
                    BadText{"depth", std::string(65, '[') + std::string(65, ']'), "64 levels"},
                    BadText{"deep", std::string(200'000, '['), "64 levels"},
                    BadText{"deep_objects",
                            [] {
                              std::string text;
                              for (int i = 0; i < 100'000; ++i) text += "{\"a\":";
                              return text;
                            }(),
                            "64 levels"}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(Json, ValuesComeBack) {
  const std::string text =
      R"( {"z": [1, -2, 1.5, 1e3, true, false, null], "a": {"b": "\u00e9\n\ud83d\ude00"}, "m": {}} )";
  const Json sorted = parse_json(text, "f", ExitCode::kUsage);
  EXPECT_EQ(sorted, Json::parse(text));
  EXPECT_EQ(sorted["a"]["b"], "\xC3\xA9\n\xF0\x9F\x98\x80");
  EXPECT_TRUE(sorted["z"][3].is_number_float());
  EXPECT_EQ(parse_ordered_json(text, "f", ExitCode::kUsage), OrderedJson::parse(text));
  EXPECT_EQ(parse_ordered_json(text, "f", ExitCode::kUsage).begin().key(), "z");
  EXPECT_EQ(parse_json("18446744073709551615", "f", ExitCode::kUsage).get<uint64_t>(), ~0ull);
  EXPECT_EQ(parse_json("-9223372036854775808", "f", ExitCode::kUsage).get<int64_t>(), INT64_MIN);
  EXPECT_EQ(parse_json(std::string(64, '[') + std::string(64, ']'), "f", ExitCode::kUsage).size(),
            1u);
}

TEST(Json, LimitsOfBytesAndValues) {
  const JsonLimits limits = {10, 4, 3};
  EXPECT_EQ(parse_json("[1,2]     ", "f", ExitCode::kUsage, limits).size(), 2u);
  EXPECT_THROW(parse_json("[1,2]      ", "f", ExitCode::kUsage, limits), Error);
  EXPECT_THROW(parse_json("[1,2,3]", "f", ExitCode::kUsage, limits), Error);
  EXPECT_THROW(parse_json("[[],[],[]]", "f", ExitCode::kUsage, limits), Error);
}

TEST(Json, LongOrderedObjectsTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += fmt::format("\"key {}\":{},", i, i);
  text += "\"last\":0}";
  EXPECT_EQ(parse_ordered_json(text, "f", ExitCode::kUsage).size(), 100'001u);
}

TEST(Json, TypedAccess) {
  const Json object = parse_json(
      R"({"int": 5, "neg": -5, "huge": 18446744073709551615, "float": 1.0, "bool": true,
          "text": "5", "null": null, "list": []})",
      "config.json",
      ExitCode::kModelFile);
  const auto integer = [&](const char* key) {
    return json_int(object, key, -10, 10, "config.json", ExitCode::kModelFile);
  };
  EXPECT_EQ(integer("int"), 5);
  EXPECT_EQ(integer("neg"), -5);
  for (const char* key : {"huge", "float", "bool", "text", "null", "list", "absent"})
    EXPECT_THROW(integer(key), Error) << key;
  EXPECT_THROW(json_int(object, "int", 6, 10, "f", ExitCode::kUsage), Error);
  EXPECT_THROW(json_int(object, "int", 0, 4, "f", ExitCode::kUsage), Error);
  EXPECT_EQ(json_number(object, "float", "f", ExitCode::kUsage), 1.0);
  EXPECT_EQ(json_number(object, "neg", "f", ExitCode::kUsage), -5.0);
  EXPECT_THROW(json_number(object, "bool", "f", ExitCode::kUsage), Error);
  EXPECT_TRUE(json_bool(object, "bool", "f", ExitCode::kUsage));
  EXPECT_THROW(json_bool(object, "int", "f", ExitCode::kUsage), Error);
  EXPECT_EQ(json_string(object, "text", "f", ExitCode::kUsage), "5");
  EXPECT_THROW(json_string(object, "int", "f", ExitCode::kUsage), Error);
  EXPECT_THROW(json_string(Json::array(), "int", "f", ExitCode::kUsage), Error);
  EXPECT_TRUE(json_has(object, "int"));
  EXPECT_FALSE(json_has(object, "null"));
  EXPECT_FALSE(json_has(object, "absent"));
  EXPECT_FALSE(json_has(Json(3), "absent"));
  try {
    integer("text");
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "config.json: text: expected an integer from -10 to 10, found \"5\"");
  }
}

TEST(ReadFile, OnlyRegularFilesWithinTheLimit) {
  const TempFolder folder("read_file");
  write_bytes(folder / "f", "12345");
  EXPECT_EQ(read_file(folder / "f", 5, ExitCode::kUsage), "12345");
  ::mkfifo((folder / "fifo").c_str(), 0600);
  std::filesystem::create_symlink("loop", folder / "loop");
  EXPECT_THROW(read_file(folder / "f", 4, ExitCode::kUsage), Error);
  for (const auto& path : {folder / "absent",
                           folder / "fifo",
                           folder / "loop",
                           folder.path(),
                           std::filesystem::path("/dev/zero")}) {
    try {
      read_file(path, 100, ExitCode::kUsage);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace glm
