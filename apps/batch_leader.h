// What rank 0 alone has of a batch: the requests, their answers as they grow, how far it all is.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/batch_file.h"
#include "apps/batch_state.h"
#include "apps/infer_job.h"
#include "apps/infer_text.h"
#include "core/engine/engine.h"

namespace glm {

// How far the batch is, on stderr: redrawn on a terminal, else a line now and then.
class BatchProgress {
 public:
  BatchProgress();
  void update(size_t done, size_t total, int64_t running, int64_t n_tokens);
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

struct BatchTotals {
  size_t n_lines = 0;
  size_t n_skipped = 0;
  size_t n_done = 0;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double seconds = 0;
  int64_t preempted = 0;
  bool stopped = false;
};

class BatchLeader {
 public:
  explicit BatchLeader(const Job& job);

  // Requests that no earlier run has answered.
  size_t n_open() const { return open_.size(); }
  void submit(Engine& engine);
  const BatchTotals& totals() const { return totals_; }
  // Keeps what is known while no step is under way. What goes wrong is only said: the job goes on.
  void save_for_later(const Engine& engine);
  // signal: that has ended the run before its time, 0: none.
  void finish(Engine& engine, int signal);
  std::string farewell(int signal) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Answer {
    std::string id;
    size_t place;
    AnswerStream stream;
    OrderedJson tools;
  };

  BatchRequest judged(const BatchItem& item) const;
  OrderedJson tools_of(const BatchItem& item) const;
  std::vector<int32_t> prompt_ids(const BatchItem& item) const;
  void go_on(std::vector<BatchRequest> all);
  void write(Engine& engine, int32_t id);
  void put(size_t place, std::string line);
  void put_held();
  void save(const Engine* engine, bool finished);

  const Job& job_;
  TextSide text_;
  OrderedJson tools_;  // of lines that bring none
  std::vector<BatchRequest> open_;
  std::unique_ptr<BatchOutput> output_;
  std::optional<BatchState> state_;
  std::map<size_t, std::string> held_;  // with a state: lines that wait for those before them
  size_t n_written_ = 0;                // likewise: requests whose lines are out
  std::map<int32_t, Answer> answers_;   // under way, by the engine's id
  BatchTotals totals_;
  BatchProgress progress_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point synced_ = start_;
};

}  // namespace glm
