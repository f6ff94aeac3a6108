// The matrix of faults: what is done to which rank where, and how the job has to end.
// SPDX-License-Identifier: MIT
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace glm::testing_support {

struct FaultCase {
  std::string point, action;  // as GLM_FAULT has them
  int ranks = 2;
  int victim = 1;
  int step = 1;
  int layer = -1;
  int code = 0;                    // of mpirun
  int lines = 1;                   // "glm_infer: error: "
  std::vector<std::string> texts;  // in that line

  std::string name() const;   // of the test: letters, digits and '_'
  std::string fault() const;  // GLM_FAULT
};

// GoogleTest shows a case by its fault.
inline void PrintTo(const FaultCase& c, std::ostream* out) { *out << c.fault(); }

// --timeout of the runs that fail, in seconds.
constexpr int kDeadline = 4;

// part: "all", or the number of a quarter.
std::vector<FaultCase> fault_cases(const std::string& part);
// GLM_FAULT_PART, or the quarter of this day.
std::string chosen_part();

}  // namespace glm::testing_support
