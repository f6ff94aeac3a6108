// What follows from the facts of all ranks: lines of the report of `glm_infer doctor`. Pure
// functions; whoever launched the job differently reads what to do. SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "apps/doctor_facts.h"
#include "core/base/check.h"

namespace glm {

enum class FindingKind : uint8_t { kOk, kNote, kWarning, kFailure };

// A line of the report. Ranks are named with their hosts.
struct Finding {
  FindingKind verdict = FindingKind::kOk;
  std::string section;  // "launch", "versions", ...
  std::string text;
  std::string advice = {};        // of warnings and failures: what to do
  ExitCode code = ExitCode::kOk;  // of failures
};
using Findings = std::vector<Finding>;

// "rank 2 on host n1".
std::string place_of(const RankFacts& rank);

// Each gives one line at least; ranks are those of the world, in order.
Findings judge_launch(const std::vector<RankFacts>& ranks);
Findings judge_versions(const std::vector<RankFacts>& ranks);
Findings judge_cores(const std::vector<RankFacts>& ranks);
Findings judge_limits(const std::vector<RankFacts>& ranks);
// After open_device(), or where it has failed (devices are "").
Findings judge_gpus(const std::vector<RankFacts>& ranks);
// What a rank's plan takes beside what its process has: bytes per rank.
Findings judge_address_space(const std::vector<RankFacts>& ranks,
                             const std::vector<int64_t>& planned);

// The code of the first failure; kOk when there is none.
ExitCode code_of(const Findings& findings);

}  // namespace glm
