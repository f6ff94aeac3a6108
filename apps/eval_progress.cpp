// SPDX-License-Identifier: MIT
#include "apps/eval_progress.h"

#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

namespace glm {

EvalProgress::EvalProgress(std::string label, std::string what, int64_t total)
    : label_(std::move(label)),
      what_(std::move(what)),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) != 0) {}

double EvalProgress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void EvalProgress::add(int64_t count) {
  done_ += count;
  const auto now = Clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000);
  if (now - last_ < pause || done_ == 0) return;
  last_ = now;
  const double rate = static_cast<double>(done_) / seconds();
  std::string line = fmt::format("glm_eval: {}{} of {} {}, {:.1f}/s, {:.0f} s left",
                                 label_,
                                 done_,
                                 total_,
                                 what_,
                                 rate,
                                 static_cast<double>(total_ - done_) / rate);
  if (terminal_) {
    constexpr int kWidth = 24;
    const auto full = static_cast<int>(kWidth * done_ / total_);
    line = fmt::format("\r\x1b[K[{:#>{}}{:.>{}}] {}", "", full, "", kWidth - full, line);
    drawn_ = true;
  } else {
    line += "\n";
  }
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

void EvalProgress::finish() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
}

}  // namespace glm
