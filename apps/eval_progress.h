// How far an evaluation is, on stderr: a bar that is redrawn on a terminal, else a line every few
// seconds. SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace glm {

class EvalProgress {
 public:
  // what: "tokens", "questions".
  EvalProgress(std::string label, std::string what, int64_t total);
  ~EvalProgress() { finish(); }
  EvalProgress(const EvalProgress&) = delete;
  EvalProgress& operator=(const EvalProgress&) = delete;

  void add(int64_t count = 1);
  // Ends the line of a terminal.
  void finish();
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_, what_;
  int64_t total_;
  int64_t done_ = 0;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

}  // namespace glm
