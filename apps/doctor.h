// `glm_infer doctor`: looks at all ranks before a job does, and says what is wrong and what to do.
// SPDX-License-Identifier: MIT
#pragma once

#include "apps/infer_options.h"
#include "parallel/mpi_session.h"

namespace glm {

// Collective. Prints the report on rank 0; ends with the code of the first failure as an error that
// all ranks have.
int run_doctor(MpiSession& session, const InferOptions& options);

}  // namespace glm
