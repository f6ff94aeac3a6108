// Shapes worth testing and timing: all remainders, odd sizes, and those of GLM-4.5-Air and the
// small models. Tests may cut the rows of a matrix, never its columns.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/types.h"

namespace glm {

struct ProductCase {
  std::string_view name;
  int64_t rows;    // of the matrix: outputs
  int64_t cols;    // inputs
  bool benchmark;  // worth timing
};

inline std::vector<ProductCase> product_cases() {
  return {{"one block", 16, 32, false},
          {"one row", 1, 32, false},
          {"odd rows", 37, 96, false},
          {"two shards of a width of no name", 48, 1568, false},
          {"expert slice of two ranks", 32, 704, false},
          {"key or value", 1024, 4096, true},
          {"query", 12288, 4096, true},
          {"attention output", 4096, 12288, true},
          {"expert down", 4096, 1408, true},
          {"dense down", 4096, 10944, true},
          {"router", 128, 4096, true},
          {"vocabulary head", 151552, 4096, true}};
}

struct ExpertCase {
  std::string_view name;
  int n_experts;
  int top_k;
  int64_t hidden;
  int64_t width;  // of an expert
  bool benchmark;
};

inline std::vector<ExpertCase> expert_cases() {
  return {{"tiny", 4, 2, 32, 16, false},
          {"odd", 5, 3, 96, 48, false},
          {"one expert", 1, 1, 64, 32, false},
          {"air, 16 experts", 16, 8, 4096, 1408, true}};
}

struct AttentionCase {
  std::string_view name;
  int n_heads;
  int n_kv_heads;
  int head_dim;
  int ratio;
  int first_head;
  bool benchmark;
  HeadLayout layout() const { return {n_heads, n_kv_heads, head_dim, ratio, first_head}; }
};

inline std::vector<AttentionCase> attention_cases() {
  return {{"one head of one", 1, 1, 1, 1, 0, false},
          {"two on one", 2, 1, 8, 2, 0, false},
          {"border inside a group", 7, 3, 24, 3, 1, false},
          {"odd width", 5, 5, 37, 1, 0, false},
          {"short last group of q8", 4, 2, 40, 2, 0, false},
          {"more heads than a unit", 19, 1, 16, 19, 0, false},
          {"air, 4 ranks", 24, 2, 128, 12, 0, false},
          {"air", 96, 8, 128, 12, 0, true},
          {"glm-4-9b", 32, 2, 128, 16, 0, true}};
}

}  // namespace glm
