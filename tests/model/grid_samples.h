// Every legal grid of a few ranks, and small models with odd shapes. SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "core/model/shard.h"
#include "tests/model/model_samples.h"

namespace glm {

// The rule of docs/parallelism.md, stated here again: expert divides tensor, or is tensor times a
// divisor of data.
inline std::vector<GridShape> legal_grids(int max_world, bool is_moe) {
  std::vector<GridShape> grids;
  for (int data = 1; data <= max_world; ++data)
    for (int pipeline = 1; data * pipeline <= max_world; ++pipeline)
      for (int tensor = 1; data * pipeline * tensor <= max_world; ++tensor)
        for (int expert = 1; expert <= (is_moe ? data * tensor : 1); ++expert) {
          const bool folds =
              tensor % expert == 0 || (expert % tensor == 0 && data % (expert / tensor) == 0);
          if (folds) grids.push_back({data, pipeline, tensor, expert});
        }
  return grids;
}

inline std::vector<ModelConfig> odd_models() {
  std::vector<ModelConfig> configs;
  Json moe = golden_config("glm4_moe_355b");  // 6 heads over 2, 10 experts
  moe["num_hidden_layers"] = 3;
  moe["n_routed_experts"] = 5;
  moe["moe_intermediate_size"] = 96;
  moe["intermediate_size"] = 80;  // no multiple of 32
  moe["vocab_size"] = 100;
  configs.push_back(parsed(moe));
  Json tied = golden_config("llama");
  tied["tie_word_embeddings"] = true;
  tied["num_attention_heads"] = 8;
  tied["num_key_value_heads"] = 1;
  tied["head_dim"] = 8;  // head borders within blocks of 32 columns
  tied["vocab_size"] = 48;
  configs.push_back(parsed(tied));
  configs.push_back(parsed(golden_config("chatglm")));
  return configs;
}

}  // namespace glm
