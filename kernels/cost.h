// Bytes that an operation has to move and operations it has to do, from its shapes: what spans
// record and benchmarks divide by the roofs. Every matrix, input and output counts once; of the
// experts only those that have rows. SPDX-License-Identifier: MIT
#pragma once

#include "core/base/trace.h"
#include "kernels/types.h"

namespace glm {

// x [rows, w.cols] times every matrix of w.
Work linear_work(int64_t rows, const Weight& w);
// `assignments` rows over `active` of the matrices of w.
Work expert_work(int64_t assignments, int64_t active, const Weight& w);
// Reads and writes of `elements` f32 values, `passes` in all, `flops_each` operations per element.
Work element_work(int64_t elements, double passes, double flops_each);
// `pairs` (row, visible position) pairs; every span reads its `positions` of the cache once.
Work attention_work(int64_t positions,
                    int64_t pairs,
                    const KvLayer& cache,
                    const HeadLayout& heads);

// Experts with rows and their rows. Reads offsets, which must be host memory.
struct ExpertLoad {
  int64_t active = 0;
  int64_t assignments = 0;
};
ExpertLoad expert_load(const ExpertGroups& groups);

// Sums over the spans, which must be host memory.
struct AttentionLoad {
  int64_t positions = 0;
  int64_t pairs = 0;
};
AttentionLoad attention_load(const BatchRows& rows);

}  // namespace glm
