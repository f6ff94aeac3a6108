// SPDX-License-Identifier: MIT
#include "kernels/cost.h"

namespace glm {
namespace {

double d(int64_t value) { return static_cast<double>(value); }

}  // namespace

Work linear_work(int64_t rows, const Weight& w) {
  return {d(w.bytes()) + 4.0 * d(rows) * d(w.cols + w.n_matrices * w.rows),
          2.0 * d(rows) * d(w.n_matrices * w.rows) * d(w.cols)};
}

Work expert_work(int64_t assignments, int64_t active, const Weight& w) {
  return {d(active) * d(w.value_stride() + w.scale_stride()) +
              4.0 * d(assignments) * d(w.cols + w.rows),
          2.0 * d(assignments) * d(w.rows) * d(w.cols)};
}

Work element_work(int64_t elements, double passes, double flops_each) {
  return {4.0 * passes * d(elements), flops_each * d(elements)};
}

Work attention_work(int64_t positions,
                    int64_t pairs,
                    const KvLayer& cache,
                    const HeadLayout& heads) {
  const double page = d(KvLayer::page_bytes(cache.dtype, cache.n_kv_heads, cache.head_dim));
  return {2.0 * page * d(positions) / kKvBlockTokens,
          4.0 * d(pairs) * d(heads.n_heads) * d(heads.head_dim)};
}

ExpertLoad expert_load(const ExpertGroups& groups) {
  ExpertLoad load;
  const int32_t* offsets = groups.offsets.i32();
  for (int e = 0; e < groups.n_experts; ++e) {
    const int64_t rows = offsets[e + 1] - offsets[e];
    load.active += rows > 0 ? 1 : 0;
    load.assignments += rows;
  }
  return load;
}

AttentionLoad attention_load(const BatchRows& rows) {
  AttentionLoad load;
  const auto* spans = rows.spans.as<SequenceSpan>();
  for (int i = 0; i < rows.n_spans; ++i) {
    const int64_t n = spans[i].n_rows;
    load.positions += n == 0 ? 0 : spans[i].position + n;
    load.pairs += n * spans[i].position + n * (n + 1) / 2;
  }
  return load;
}

}  // namespace glm
