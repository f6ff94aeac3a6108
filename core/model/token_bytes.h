// What a token costs, from the tensor specs: the numerators of the roofs.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/model/tensor_specs.h"

namespace glm {

// The active parameters of one token at their stored types: every matrix once, of the routed
// experts top_k, of the embedding one row (the whole matrix when it is the head as well). The cache
// is not part of it.
int64_t bytes_per_token(const ModelConfig& config,
                        const std::map<std::string, StoredType, std::less<>>& stored);

// Operations (a multiply and an add are two) of a prompt's token in products with weights; the
// head, which only the last token needs, and attention itself are not part of it.
int64_t operations_per_prompt_token(const ModelConfig& config);

}  // namespace glm
