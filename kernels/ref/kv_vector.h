// One vector of the key-value cache as the reference reads and writes it.
// SPDX-License-Identifier: MIT
#pragma once

#include "kernels/types.h"

namespace glm {

// The key (or value) of one position and head: offset counts positions inside the page.
struct KvVector {
  const KvLayer& cache;
  bool is_key = false;
  int64_t page = 0;
  int head = 0;
  int offset = 0;

  void write(const float* x) const;  // head_dim elements
  double read(int dim) const;

 private:
  void write_group(const float* x, int64_t group) const;
  uint8_t* base() const;
  int64_t index(int dim) const;
  float* scale(int64_t group) const;
};

}  // namespace glm
