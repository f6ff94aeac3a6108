// FP8 weights of checkpoints: which published scheme a config.json announces, and the scales that
// lie beside each weight. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "io/json.h"
#include "io/safetensors.h"

namespace glm {

enum class Fp8Scheme : uint8_t {
  kNone,
  kChannel,  // compressed-tensors: NAME_scale [rows, 1]
  kBlock     // fp8: NAME_scale_inv [ceil(rows / 128), ceil(cols / 128)]; a multiplier all the same
};

// From the quantization_config of `config`. Throws Error(kModelFile) naming `source`, key and value
// for every other kind of quantisation.
Fp8Scheme fp8_scheme(const Json& config, const std::string& source);

class Fp8Weights {
 public:
  // `folder` begins messages. All must outlive this object.
  Fp8Weights(const std::filesystem::path& folder, const Checkpoint& checkpoint, Fp8Scheme scheme)
      : folder_(folder), checkpoint_(checkpoint), scheme_(scheme) {}

  // The scales of an F8_E4M3 tensor of two dims (or three: experts one behind the other). Throws
  // Error(kModelFile) when they are missing or do not fit it.
  const CheckpointTensor& scales_of(const CheckpointTensor& weight) const;

  // Multiplies decoded rows [first, first + count), matrices taken together, by their scales, in
  // f32. Throws Error(kModelFile) for a scale that is negative or not finite.
  void apply(const CheckpointTensor& weight, int64_t first, int64_t count, float* values) const;

 private:
  std::string where(const CheckpointTensor& tensor) const;

  const std::filesystem::path& folder_;
  const Checkpoint& checkpoint_;
  Fp8Scheme scheme_;
};

}  // namespace glm
