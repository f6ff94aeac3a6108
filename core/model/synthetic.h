// Synthetic models: a config.json and random numbers. Every number is a function of seed, tensor
// name and index, so a file of glm_convert --synthetic and the ranks of any grid that make their
// shares themselves hold the same model. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "core/model/tensor_specs.h"
#include "kernels/random_rows.h"

namespace glm {

// What stands for a file.
struct SyntheticModel {
  uint64_t seed = 0;
  DTypeChoice dtypes;
};

// The numbers of a whole tensor, drawn so that activations stay of order one through all layers.
RandomRows synthetic_rows(const TensorSpec& spec, StoredType type, uint64_t seed);

}  // namespace glm
