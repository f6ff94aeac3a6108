// Range-checked access to the keys of a config.json. SPDX-License-Identifier: MIT
#include "core/model/config_fields.h"

#include <cmath>

namespace glm {

int64_t ConfigFields::integer(std::string_view key, int64_t min, int64_t max) const {
  return json_int(object_, key, min, max, source_, ExitCode::kModelFile);
}

int64_t ConfigFields::integer_or(std::string_view key,
                                 int64_t fallback,
                                 int64_t min,
                                 int64_t max) const {
  return has(key) ? integer(key, min, max) : fallback;
}

double ConfigFields::number(std::string_view key, double min, double max) const {
  const double value = json_number(object_, key, source_, ExitCode::kModelFile);
  if (!std::isfinite(value) || value < min || value > max)
    error(key, fmt::format("{} is not within [{}, {}]", value, min, max));
  return value;
}

double ConfigFields::number_or(std::string_view key,
                               double fallback,
                               double min,
                               double max) const {
  return has(key) ? number(key, min, max) : fallback;
}

bool ConfigFields::flag_or(std::string_view key, bool fallback) const {
  return has(key) ? json_bool(object_, key, source_, ExitCode::kModelFile) : fallback;
}

std::string ConfigFields::text(std::string_view key) const {
  return json_string(object_, key, source_, ExitCode::kModelFile);
}

std::string ConfigFields::text_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? text(key) : std::string(fallback);
}

std::vector<int32_t> ConfigFields::token_ids(std::string_view key, int64_t vocab) const {
  if (!has(key)) return {};
  const Json& value = (*this)[key];
  if (!value.is_array()) return {static_cast<int32_t>(integer(key, 0, vocab - 1))};
  if (value.size() > kMaxEosIds)
    error(key, fmt::format("lists {} token ids, at most {} are allowed", value.size(), kMaxEosIds));
  std::vector<int32_t> ids;
  for (const Json& entry : value) {
    if (!entry.is_number_integer()) error(key, "expected token ids, found another value");
    if (entry.get<int64_t>() < 0 || entry.get<int64_t>() >= vocab)
      error(key, fmt::format("token id {} is outside the vocabulary of {}", entry.dump(), vocab));
    ids.push_back(entry.get<int32_t>());
  }
  return ids;
}

void ConfigFields::require_flag(std::string_view key, bool value) const {
  if (flag_or(key, value) != value)
    error(key, fmt::format("{} is not supported, only {}", !value, value));
}

void ConfigFields::require_text(std::string_view key, std::string_view value) const {
  const std::string found = text_or(key, value);
  if (found != value)
    error(key, fmt::format("\"{}\" is not supported, only \"{}\"", escaped(found), value));
}

void ConfigFields::error(std::string_view key, const std::string& reason) const {
  fail(ExitCode::kModelFile, "{}: {}: {}", escaped(source_), key, reason);
}

}  // namespace glm
