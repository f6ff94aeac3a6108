// What `glm_infer doctor` tries on all ranks: messages, blocks of the model file, the memory plan.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

#include "apps/doctor_judge.h"
#include "apps/infer_job.h"

namespace glm {

// Each rank sends a pattern to every other and takes part in sums of known result. Collective.
Findings check_messages(MpiSession& session);

// Blocks here and there in the file, on every rank, against the checksums of the index that
// share_model() has compared. Collective.
Findings check_blocks(MpiSession& session, const Job& job);

// The plan of settle_job() against what each memory has left. Collective.
Findings check_plan(MpiSession& session, const Job& job, const std::vector<RankFacts>& ranks);

double seconds_since(std::chrono::steady_clock::time_point start);

// A failure in the words of an error that all ranks have.
Finding failure_of(const std::string& section, const Error& error, const std::string& advice);

}  // namespace glm
