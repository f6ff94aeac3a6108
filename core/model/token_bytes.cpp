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

int64_t operations_per_prompt_token(const ModelConfig& config) {
  int64_t operations = 0;
  for (const TensorSpec& spec : tensor_specs(config, false)) {
    if (spec.role != Role::kMatrix && spec.role != Role::kRouter) continue;
    if (spec.dims.size() == 1) continue;
    const int64_t matrices = spec.experts ? config.router.top_k : spec.n_matrices();
    operations += 2 * matrices * spec.rows() * spec.cols();
  }
  return operations;
}

}  // namespace glm
