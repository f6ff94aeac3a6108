// Names and sizes of the key-value cache types. SPDX-License-Identifier: MIT
#include "kernels/types.h"

#include <array>

namespace glm {
namespace {

constexpr std::array<std::string_view, 3> kKvNames = {"f32", "f16", "q8"};

}  // namespace

std::string_view kv_dtype_name(KvDType dtype) { return kKvNames.at(static_cast<size_t>(dtype)); }

std::optional<KvDType> parse_kv_dtype(std::string_view name) {
  for (size_t i = 0; i < kKvNames.size(); ++i)
    if (kKvNames[i] == name) return static_cast<KvDType>(i);
  return std::nullopt;
}

int64_t KvLayer::page_bytes(KvDType dtype, int n_kv_heads, int head_dim) {
  const int64_t vectors = int64_t{n_kv_heads} * kKvBlockTokens;
  if (dtype == KvDType::kF32) return vectors * head_dim * 4;
  if (dtype == KvDType::kF16) return vectors * head_dim * 2;
  const int64_t groups = (head_dim + kQuantBlock - 1) / kQuantBlock;
  return vectors * (head_dim + groups * 4);
}

}  // namespace glm
