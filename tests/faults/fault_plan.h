// GLM_FAULT of the test builds: "rank=1,point=dispatch,step=2,layer=1,action=sleep:20".
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/base/fault.h"

namespace glm::testing_support {

enum class FaultAction { kKill, kStop, kExit, kThrow, kSleep, kCorrupt, kSkew };

struct FaultPlan {
  int rank = 0;
  std::string point;
  int64_t step = 1;
  std::optional<int> layer;  // none: every layer of the step
  FaultAction action = FaultAction::kThrow;
  double seconds = 0;  // of kSleep

  bool meets(const FaultPlace& place) const;
};

// Throws Error(kUsage) for what cannot be meant: a test that injects nothing would pass unseen.
FaultPlan parse_fault_plan(const std::string& text);

}  // namespace glm::testing_support
