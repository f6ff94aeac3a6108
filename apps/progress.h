// How far a long piece of work is, on stderr: one line that is drawn anew on a terminal, else a
// line every few seconds. SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace glm {

// In bytes.
struct WorkState {
  int64_t done = 0;
  int64_t resumed = 0;  // of them, done before this run
  int64_t total = 0;
};

// "41 s", "12 min 05 s", "3 h 07 min".
std::string duration_text(double seconds);

// " 45.2 % of 60.81 GB, 812 MB/s, 41 s left". The rate is that of this run, `seconds` long.
std::string progress_text(const WorkState& state, double seconds);

class ProgressLine {
 public:
  using Clock = std::chrono::steady_clock;

  ProgressLine(std::string program, bool terminal);
  // Judges whether stderr is a terminal.
  explicit ProgressLine(std::string program);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // `what` is shown behind the figures.
  void update(const WorkState& state, std::string_view what);
  // What would be written at `now`; empty when it is too early for another line.
  std::string line(const WorkState& state, std::string_view what, Clock::time_point now);
  // Other work begins: rates count from here.
  void restart(Clock::time_point now = Clock::now());
  // Clears the line of a terminal.
  void finish();

 private:
  std::string program_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point last_;
};

}  // namespace glm
