// How far a backend may be from the reference, derived from f32 rounding and the length of sums
// (docs/numerics.md): one bound per element of an output. Used by the tests and by --ops checked.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "kernels/types.h"

namespace glm {

using Tolerances = std::vector<double>;

// x [n, w.cols] times matrix `matrix` of w: [n, w.rows]. Inputs quantised alike on both sides add
// nothing. bias may be absent.
// fast: f16 and bf16 matrices by cuBLAS (kernels/cuda/dense.cu).
Tolerances linear_tolerance(
    Tensor x, const Weight& w, int64_t matrix, Tensor bias, bool fast = false);
// [n, w.rows / 2].
Tolerances gate_up_tolerance(Tensor x, const Weight& w, int64_t matrix, bool fast = false);
// `terms` rounded operations in a row on values that do not cancel: relative to the result.
Tolerances relative_tolerance(Tensor expected, double terms);
Tolerances norm_tolerance(Tensor expected, int64_t n);
// x cos + y sin: relative to the pair. qkv before the turn.
Tolerances rope_tolerance(Tensor qkv, const HeadLayout& heads);
// fast: as tensor cores compute it (kernels/cuda/attention_tiles.cu).
Tolerances attention_tolerance(Tensor qkv,
                               const KvLayer& cache,
                               const BatchRows& rows,
                               const HeadLayout& heads,
                               bool fast = false);
Tolerances combine_tolerance(Tensor out, Tensor rows, const ExpertGroups& groups);

// Where an output leaves its tolerance.
struct Deviation {
  bool found = false;
  int64_t index = 0;  // of the first element beyond its tolerance
  double expected = 0;
  double actual = 0;
  double share = 0;        // |difference| over the tolerance there
  double worst_share = 0;  // over all elements
};
// Elements whose expected value is not finite must not be finite either.
Deviation compare(Tensor actual, Tensor expected, const Tolerances& tolerance);

}  // namespace glm
