// Bytes of weights that one decoded token has to read: the numerator of the memory roof.
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

}  // namespace glm
