// SPDX-License-Identifier: MIT
#include "tests/faults/fault_plan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <sstream>
#include <string_view>

namespace glm::testing_support {
namespace {

constexpr std::array<std::string_view, 10> kPoints = {"init",
                                                      "load",
                                                      "plan",
                                                      "prefill",
                                                      "decode",
                                                      "dispatch",
                                                      "combine",
                                                      "sampling",
                                                      "finalize",
                                                      "leave"};

[[noreturn]] void refuse(const std::string& text) {
  fail(ExitCode::kUsage, "GLM_FAULT: \"{}\" is not understood", escaped(text));
}

int64_t number(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end || value < 0 || value > 1'000'000) refuse(text);
  return value;
}

void set_action(FaultPlan& plan, const std::string& text) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  if (name == "sleep" && colon != std::string::npos) {
    plan.action = FaultAction::kSleep;
    plan.seconds = static_cast<double>(number(text.substr(colon + 1)));
    return;
  }
  if (colon != std::string::npos) refuse(text);
  if (name == "kill")
    plan.action = FaultAction::kKill;
  else if (name == "stop")
    plan.action = FaultAction::kStop;
  else if (name == "exit")
    plan.action = FaultAction::kExit;
  else if (name == "throw")
    plan.action = FaultAction::kThrow;
  else if (name == "corrupt")
    plan.action = FaultAction::kCorrupt;
  else if (name == "skew")
    plan.action = FaultAction::kSkew;
  else
    refuse(text);
}

void set_field(FaultPlan& plan, const std::string& key, const std::string& value) {
  if (key == "rank")
    plan.rank = static_cast<int>(number(value));
  else if (key == "step")
    plan.step = number(value);
  else if (key == "layer")
    plan.layer = static_cast<int>(number(value));
  else if (key == "action")
    set_action(plan, value);
  else if (key == "point" && std::find(kPoints.begin(), kPoints.end(), value) != kPoints.end())
    plan.point = value;
  else
    refuse(key + "=" + value);
}

}  // namespace

bool FaultPlan::meets(const FaultPlace& place) const {
  return rank == place.rank && point == place.point && step == place.step &&
         layer.value_or(place.layer) == place.layer;
}

FaultPlan parse_fault_plan(const std::string& text) {
  FaultPlan plan;
  std::set<std::string> seen;
  std::istringstream fields(text);
  for (std::string field; std::getline(fields, field, ',');) {
    const size_t equals = field.find('=');
    if (equals == std::string::npos) refuse(field);
    const std::string key = field.substr(0, equals);
    if (!seen.insert(key).second) refuse(field);
    set_field(plan, key, field.substr(equals + 1));
  }
  for (const char* key : {"rank", "point", "action"})
    if (!seen.contains(key)) fail(ExitCode::kUsage, "GLM_FAULT: {}= is missing", key);
  return plan;
}

}  // namespace glm::testing_support
