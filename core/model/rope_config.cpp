// Rotary embedding: its configuration in both dialects, and its frequencies.
// SPDX-License-Identifier: MIT
#include <cmath>
#include <numbers>

#include "core/model/config_fields.h"

namespace glm {
namespace {

constexpr double kMaxTheta = 1e15;
constexpr double kDefaultTheta = 10000.0;

RopePairing pairing_of(Family family) {
  const bool interleaved =
      family == Family::kGlm || family == Family::kGlm4 || family == Family::kChatGlm;
  return interleaved ? RopePairing::kInterleaved : RopePairing::kHalfSplit;
}

double default_rotary_factor(Family family) {
  const bool half = family == Family::kGlm || family == Family::kGlm4 ||
                    family == Family::kGlm4Moe || family == Family::kChatGlm;
  return half ? 0.5 : 1.0;
}

// `scaling`: rope_scaling or rope_parameters.
void parse_scaling(const ConfigFields& scaling, RopeConfig& rope) {
  const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
  if (type == "default") return;
  if (type != "llama3")
    scaling.error(
        "rope_type",
        fmt::format("\"{}\" is not supported; supported are default, llama3", escaped(type)));
  rope.llama3 = true;
  rope.factor = scaling.number("factor", 1.0, 1e6);
  rope.low_freq_factor = scaling.number("low_freq_factor", 1e-6, 1e6);
  rope.high_freq_factor = scaling.number("high_freq_factor", 1e-6, 1e6);
  rope.original_max_positions =
      static_cast<double>(scaling.integer("original_max_position_embeddings", 1, kMaxPositions));
  if (rope.high_freq_factor <= rope.low_freq_factor)
    scaling.error("high_freq_factor", "must be greater than low_freq_factor");
}

int rotary_dim(const ConfigFields& fields, double factor, int head_dim) {
  const int dim = static_cast<int>(head_dim * factor);
  if (dim < 2 || dim % 2 != 0)
    fields.error("partial_rotary_factor",
                 fmt::format("{} of head_dim {} gives {} rotary dimensions; an even number of at "
                             "least 2 is needed",
                             factor,
                             head_dim,
                             dim));
  return dim;
}

}  // namespace

RopeConfig parse_rope(const ConfigFields& fields, Family family, int head_dim) {
  RopeConfig rope;
  rope.pairing = pairing_of(family);
  if (family == Family::kChatGlm) {
    rope.theta = kDefaultTheta * fields.number_or("rope_ratio", 1.0, 1e-4, 1e9);
    rope.rotary_dim = rotary_dim(fields, 0.5, head_dim);
    return rope;
  }
  rope.theta = fields.number_or("rope_theta", kDefaultTheta, 1.0, kMaxTheta);
  double factor =
      fields.number_or("partial_rotary_factor", default_rotary_factor(family), 1e-6, 1.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!fields.has(key)) continue;
    if (!fields[key].is_object()) fields.error(key, "expected an object or null");
    const std::string source = fields.source() + ": " + key;
    const ConfigFields group(fields[key], source);
    for (const auto& item : fields[key].items())
      if (item.value().is_object())
        fields.error(key, "parameters per layer type are not supported");
    // rope_parameters, if present, says everything: rope_scaling is then an older copy.
    if (std::string_view(key) == "rope_scaling" && fields.has("rope_parameters")) continue;
    rope.theta = group.number_or("rope_theta", rope.theta, 1.0, kMaxTheta);
    factor = group.number_or("partial_rotary_factor", factor, 1e-6, 1.0);
    parse_scaling(group, rope);
  }
  rope.rotary_dim = rotary_dim(fields, factor, head_dim);
  return rope;
}

std::vector<float> RopeConfig::inverse_frequencies() const {
  const int n = rotary_dim / 2;
  std::vector<float> result(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    double frequency = std::pow(theta, -2.0 * i / rotary_dim);
    if (llama3) {
      // Long waves are stretched by `factor`, short ones kept, those between blended.
      const double turns = original_max_positions * frequency / (2.0 * std::numbers::pi);
      if (turns < low_freq_factor) {
        frequency /= factor;
      } else if (turns <= high_freq_factor) {
        const double s = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
        frequency *= (1.0 - s) / factor + s;
      }
    }
    result[static_cast<size_t>(i)] = static_cast<float>(frequency);
  }
  return result;
}

}  // namespace glm
