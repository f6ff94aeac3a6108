// --state: what a batch keeps so that a later job goes on where it was stopped, and the judgement
// whether that job is the same one (docs/operations.md). SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "apps/batch_file.h"
#include "apps/infer_job.h"
#include "core/engine/engine.h"
#include "io/run_state.h"

namespace glm {

// A request of a batch, judged.
struct BatchRequest {
  std::string id;
  size_t place = 0;  // in the input, requests counted from 0
  Request request;
  std::vector<std::string> stops;
  OrderedJson tools;   // null: none
  AnswerState so_far;  // of an earlier run
};

class BatchState {
 public:
  // Reads what an earlier run has left, if it has. Throws Error(kUsage) when that was made for
  // another model, other requests or other options, Error(kModelFile) when it is damaged.
  BatchState(const Job& job, const std::vector<BatchRequest>& requests);

  bool found() const { return found_; }
  const RunState& before() const { return before_; }
  // The part of `requests` that is not answered yet, each with what is known of its answer.
  // `written`: how many of them the output has, the first ones. Complete answers that are not
  // written go to `held`.
  std::vector<BatchRequest> open(std::vector<BatchRequest> requests,
                                 size_t written,
                                 std::map<size_t, std::string>& held) const;
  // Takes the place of what was saved before.
  void save(RunState now) const;
  const std::string& path() const { return path_; }

 private:
  void judge(const std::string& input, const std::vector<BatchRequest>& requests) const;
  AnswerState answer_of(const RunState::Sequence& saved, const Request& request) const;

  std::string path_;
  int64_t vocab_;
  RunState job_;     // model, settings, requests of this job
  RunState before_;  // where found
  bool found_ = false;
};

// "SIGUSR1".
std::string signal_name(int signal);

}  // namespace glm
