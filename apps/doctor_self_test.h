// The self-test of `glm_infer doctor`: a tiny random model on every layout that the ranks allow,
// held against one rank alone. It takes the way of every job: plan, weights, engine.
// SPDX-License-Identifier: MIT
#pragma once

#include "apps/doctor_judge.h"
#include "apps/infer_options.h"
#include "parallel/mpi_session.h"

namespace glm {

struct SelfTest {
  int possible = 0;      // layouts of the ranks
  int tried = 0;         // before the time was over
  double deviation = 0;  // largest of f32 logits from one rank's, as part of their range
  double allowed = 0;    // of it
  double seconds = 0;
  Findings findings;
};

// Collective; begins no layout after `seconds`. What it finds is the same on all ranks. Throws what
// the parts of a job throw, with the layout before the text: a rank that cannot go on ends the job.
SelfTest run_self_test(MpiSession& session, const InferOptions& options, double seconds);

// How far f32 logits of a layout may be from those of one rank, as part of their range.
double allowed_deviation(int ranks, int64_t layers);

}  // namespace glm
