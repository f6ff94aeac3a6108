// JSON from untrusted files: parsed with limits, into values that are safe to copy. nlohmann-json
// does the work. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/base/check.h"

namespace glm {

using Json = nlohmann::json;  // objects sorted by key; for configs, indexes, vocabularies
using OrderedJson =
    nlohmann::ordered_json;  // objects in the order of the text; for messages and tools

inline constexpr std::string_view kJsonBlanks = " \t\r\n";

struct JsonLimits {
  int64_t max_bytes = int64_t{100} << 20;
  int max_depth = 64;
  int64_t max_values = int64_t{50'000'000};  // of all kinds; bounds the memory of the result
};

// Throws Error(code) naming `source` (a file name), byte offset and reason: not UTF-8, trailing
// text, nesting too deep, too many values, duplicate key in one object, number out of the range of
// int64/double, text longer than the limit.
Json parse_json(std::string_view text,
                const std::string& source,
                ExitCode code,
                const JsonLimits& limits = {});
OrderedJson parse_ordered_json(std::string_view text,
                               const std::string& source,
                               ExitCode code,
                               const JsonLimits& limits = {});

// The whole regular file as bytes. Throws Error(code) with path and reason: absent, not a regular
// file (FIFO, device, directory), larger than `max_bytes`, read error.
std::string read_file(const std::filesystem::path& path, int64_t max_bytes, ExitCode code);

// Typed access to a key of a config-like object; throws Error(code) "source: key: expected ...,
// found ..." . Integers must be JSON integers (1.0, true and "1" are errors) within [min, max].
int64_t json_int(const Json& object,
                 std::string_view key,
                 int64_t min,
                 int64_t max,
                 const std::string& source,
                 ExitCode code);
double json_number(const Json& object,
                   std::string_view key,
                   const std::string& source,
                   ExitCode code);
bool json_bool(const Json& object, std::string_view key, const std::string& source, ExitCode code);
std::string json_string(const Json& object,
                        std::string_view key,
                        const std::string& source,
                        ExitCode code);
// Present and not null.
bool json_has(const Json& object, std::string_view key);

}  // namespace glm
