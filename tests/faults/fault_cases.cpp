// SPDX-License-Identifier: MIT
#include "tests/faults/fault_cases.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>

namespace glm::testing_support {
namespace {

constexpr int kQuarters = 4;
constexpr const char* kLong = "sleep:30";
constexpr const char* kShort = "sleep:2";

std::string named(const FaultCase& c) { return "rank " + std::to_string(c.victim) + " on host "; }

// How every action ends where all ranks still wait for each other under the deadline.
void expect_usual_end(FaultCase& c) {
  const std::string signature =
      "[rank " + std::to_string(c.victim) + " of " + std::to_string(c.ranks) + " on host ";
  if (c.action == "kill" || c.action == "exit") {
    c.code = c.action == "kill" ? 137 : 1;
    c.texts = {named(c), " is gone", " was last in ", " layer"};
  } else if (c.action == "stop") {
    c.code = 5;
    c.texts = {named(c), "has not shown a heartbeat for", " layer"};
  } else if (c.action == "throw") {
    c.code = 1;
    c.texts = {"injected error at " + c.point, signature, " layer"};
  } else if (c.action == kLong) {
    c.code = 5;
    c.texts = {"waited 4 s in ", named(c), "has waited for nobody for", " layer"};
  } else if (c.action == kShort) {
    c.lines = 0;
  } else if (c.action == "corrupt") {
    c.code = c.point == "plan" ? 5 : 6;
    c.texts = {c.point == "plan" ? "step plan" : " not finite", "[rank ", " layer"};
  }
}

// Behind the last meeting of all ranks: nobody speaks for a rank that is gone, since the answer is
// complete and the others are leaving.
void expect_late_end(FaultCase& c) {
  expect_usual_end(c);
  if (c.action == "kill" || c.action == "exit") c.lines = 0;
  if (c.action == "stop" || c.action == kLong) c.texts = {"waited 4 s in MPI_Finalize", " layer"};
}

bool has_data(const std::string& point) {
  return point != "init" && point != "finalize" && point != "leave";
}

// The leader samples; it does not read its own plan. Other victims differ from case to case.
int victim_of(const std::string& point, int ranks, int number) {
  if (point == "sampling") return 0;
  if (ranks == 2) return point == "plan" ? 1 : number % 2;
  return point == "plan" ? 1 + number % 3 : number % 4;
}

}  // namespace

std::string FaultCase::name() const {
  std::string text = point + "_" + action + "_np" + std::to_string(ranks);
  std::replace(text.begin(), text.end(), ':', '_');
  return text;
}

std::string FaultCase::fault() const {
  return "rank=" + std::to_string(victim) + ",point=" + point + ",step=" + std::to_string(step) +
         (layer < 0 ? "" : ",layer=" + std::to_string(layer)) + ",action=" + action;
}

std::string chosen_part() {
  const char* part = std::getenv("GLM_FAULT_PART");
  if (part != nullptr) return part;
  const std::time_t days = std::time(nullptr) / (24 * 60 * 60);
  return std::to_string(days % kQuarters);
}

std::vector<FaultCase> fault_cases(const std::string& part) {
  std::vector<FaultCase> cases;
  int number = 0;
  for (const char* point : {"init",
                            "load",
                            "plan",
                            "prefill",
                            "decode",
                            "dispatch",
                            "combine",
                            "sampling",
                            "finalize",
                            "leave"}) {
    for (const char* action : {"kill", "stop", "exit", "throw", kLong, kShort, "corrupt"}) {
      for (const int ranks : {2, 4}) {
        FaultCase c;
        c.point = point;
        c.action = action;
        c.ranks = ranks;
        if (c.action == "corrupt" && !has_data(c.point)) continue;
        c.victim = victim_of(c.point, ranks, number / 2);
        // Steps: 1 is the prompt, the others decode. Of the weights, enough to matter.
        if (c.point == "load") c.step = 5;
        if (c.point == "decode" || c.point == "sampling") c.step = 3;
        // Of four ranks the last two hold layers 3 to 5.
        if (c.point == "dispatch" || c.point == "combine") c.layer = c.victim < 2 ? 2 : 4;
        c.point == "leave" ? expect_late_end(c) : expect_usual_end(c);
        // Both counts of ranks in every quarter.
        const int quarter = (number + number / 2) % kQuarters;
        if (part == "all" || part == std::to_string(quarter)) cases.push_back(c);
        ++number;
      }
    }
  }
  return cases;
}

}  // namespace glm::testing_support
