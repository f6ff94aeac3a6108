// Progress of long work, as text. SPDX-License-Identifier: MIT
#include "apps/progress.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <unistd.h>

#include "core/base/check.h"

namespace glm {
namespace {

constexpr std::chrono::milliseconds kTerminalPause{100};
constexpr std::chrono::milliseconds kLinePause{5000};

}  // namespace

std::string duration_text(double seconds) {
  // Whoever waits for weeks need not know how many.
  const auto whole = static_cast<int64_t>(std::clamp(seconds, 0.0, 3.6e6) + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

std::string progress_text(const WorkState& state, double seconds) {
  const auto done = static_cast<double>(state.done);
  const auto total = static_cast<double>(std::max<int64_t>(state.total, 1));
  const double rate =
      seconds > 0.0 ? static_cast<double>(state.done - state.resumed) / seconds : 0.0;
  const std::string size =
      total < 1e9 ? fmt::format("{:.1f} MB", total / 1e6) : fmt::format("{:.2f} GB", total / 1e9);
  const std::string share =
      fmt::format("{:5.1f} % of {}", std::clamp(100.0 * done / total, 0.0, 100.0), size);
  if (rate <= 0.0) return share;
  return fmt::format(
      "{}, {:.0f} MB/s, {} left", share, rate / 1e6, duration_text((total - done) / rate));
}

ProgressLine::ProgressLine(std::string program, bool terminal)
    : program_(std::move(program)), terminal_(terminal), start_(Clock::now()), last_(start_) {}

ProgressLine::ProgressLine(std::string program)
    : ProgressLine(std::move(program), ::isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() { finish(); }

std::string ProgressLine::line(const WorkState& state,
                               std::string_view what,
                               Clock::time_point now) {
  if (now - last_ < (terminal_ ? kTerminalPause : kLinePause)) return {};
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string figures = progress_text(state, seconds);
  if (!terminal_) return fmt::format("{}: {}, {}\n", program_, figures, what);
  constexpr int64_t kWidth = 24;
  const auto full = static_cast<int>(
      std::clamp<int64_t>(state.done / std::max<int64_t>(1, state.total / kWidth), 0, kWidth));
  drawn_ = true;
  return fmt::format("\r[{:#>{}}{:.>{}}] {}: {}, {:<32.32}\x1b[K",
                     "",
                     full,
                     "",
                     static_cast<int>(kWidth) - full,
                     program_,
                     figures,
                     what);
}

void ProgressLine::update(const WorkState& state, std::string_view what) {
  const std::string text = line(state, what, Clock::now());
  if (text.empty()) return;
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void ProgressLine::restart(Clock::time_point now) { start_ = now; }

void ProgressLine::finish() {
  if (!drawn_) return;
  drawn_ = false;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

}  // namespace glm
