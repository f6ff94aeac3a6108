// What every verb of a group does before and after: its number, counters and trace span.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

#include "parallel/group_communicator.h"

namespace glm {

// One verb: numbers it, and adds it to counters and trace.
class GroupCommunicator::Call {
 public:
  // span: "comm." and the name of the verb.
  Call(GroupCommunicator& group, const char* span)
      : group_(group), span_(span), start_(Trace::Clock::now()), sent_(group.counters_.sent_bytes) {
    GLM_CHECK(!group.started_, "{} of group {} before all_to_all_wait", span, group.name_);
    group_.verb_ = span + 5;
    group_.sequence_ += 1;
    group_.counters_.calls += 1;
    group_.transfers_.clear();
  }
  // The second half of a verb that was counted when it began.
  struct Rest {};
  Call(GroupCommunicator& group, const char* span, Rest)
      : group_(group),
        span_(span),
        start_(Trace::Clock::now()),
        sent_(group.counters_.sent_bytes) {}
  ~Call() {
    const double seconds = std::chrono::duration<double>(Trace::Clock::now() - start_).count();
    group_.counters_.seconds += seconds;
    if (group_.options_.trace != nullptr)
      group_.options_.trace->add(
          span_, seconds, {static_cast<double>(group_.counters_.sent_bytes - sent_), 0});
    const StepContext* context = group_.options_.context;
    if (context != nullptr && context->log != nullptr)
      context->log->add_verb(
          group_.name_, context->part, seconds, group_.counters_.sent_bytes - sent_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  GroupCommunicator& group_;
  const char* span_;
  Trace::Clock::time_point start_;
  int64_t sent_;
};

}  // namespace glm
