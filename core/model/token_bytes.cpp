// SPDX-License-Identifier: MIT
#include "core/model/token_bytes.h"

namespace glm {

int64_t bytes_per_token(const ModelConfig& config,
                        const std::map<std::string, StoredType, std::less<>>& stored) {
  int64_t bytes = 0;
  for (const TensorSpec& spec : tensor_specs(config, false)) {
    const auto type = stored.find(spec.name);
    GLM_CHECK(type != stored.end(), "no stored type of {}", spec.name);
    const int64_t whole = stored_bytes(spec, type->second);
    if (spec.experts)
      bytes += whole / spec.n_matrices() * config.router.top_k;
    else if (spec.kind == Kind::kEmbedding && !config.tied)
      bytes += whole / spec.rows();
    else
      bytes += whole;
  }
  return bytes;
}

}  // namespace glm
