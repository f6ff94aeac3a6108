// Range-checked access to the keys of a config.json; every error names file and key.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/config.h"
#include "io/json.h"

namespace glm {

// Upper limits of what a config may ask for: far above any real model, far below what overflows.
inline constexpr int64_t kMaxWidth = int64_t{1} << 20;  // hidden, head widths
inline constexpr int64_t kMaxInner = int64_t{1} << 24;  // intermediate sizes
inline constexpr int64_t kMaxLayers = 10'000;
inline constexpr int64_t kMaxHeads = 1 << 16;
inline constexpr int64_t kMaxHeadDim = 4096;
inline constexpr int64_t kMaxVocab = int64_t{1} << 24;
inline constexpr int64_t kMaxPositions = int64_t{1} << 30;
inline constexpr int64_t kMaxExperts = 1 << 16;
inline constexpr int64_t kMaxExpertLayers = 1 << 17;  // layers * experts
inline constexpr int64_t kMaxTopK = 64;               // experts per token
inline constexpr size_t kMaxEosIds = 64;
inline constexpr double kMaxParameters = 1e15;

class ConfigFields {
 public:
  // Both must outlive this object.
  ConfigFields(const Json& object, const std::string& source) : object_(object), source_(source) {}

  bool has(std::string_view key) const { return json_has(object_, key); }
  const Json& operator[](std::string_view key) const { return object_.at(std::string(key)); }
  const std::string& source() const { return source_; }

  int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  // Finite and within [min, max].
  double number(std::string_view key, double min, double max) const;
  double number_or(std::string_view key, double fallback, double min, double max) const;
  bool flag_or(std::string_view key, bool fallback) const;
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string_view fallback) const;
  // A token id, a list of them, or null; each within [0, vocab).
  std::vector<int32_t> token_ids(std::string_view key, int64_t vocab) const;

  // A key that must be absent or have this value, since the formulas know no other.
  void require_flag(std::string_view key, bool value) const;
  void require_text(std::string_view key, std::string_view value) const;
  [[noreturn]] void error(std::string_view key, const std::string& reason) const;

 private:
  const Json& object_;
  const std::string& source_;
};

// The rotary embedding of a config in either dialect (rope_config.cpp).
RopeConfig parse_rope(const ConfigFields& fields, Family family, int head_dim);

}  // namespace glm
