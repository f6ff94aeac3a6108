// What all programs share: the one line of an error, option parsing, the text of --version, a
// progress line, sizes with units. SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/check.h"
#include "core/base/dtype.h"

namespace glm {

// The main of a program without MPI: runs `body` and returns its exit code; an exception becomes
// the line "PROGRAM: error: ..." on stderr and the code of the error. Output that could not be
// written is an error as well.
int run_program(const std::string& program, const std::function<int()>& body);

// Parses; false when --help or --version was asked for: then `text` holds what is to be printed.
// Throws Error(kUsage) for whatever CLI11 refuses.
bool parse_options(CLI::App& app, int argc, const char* const* argv, std::string& text);

// For CLI::Option::check. CLI11's own range check accepts NaN.
CLI::Validator number_in(double low, double high, bool low_open = false);
// Decimal digits only: what strtol forgives (blanks, signs, hex) is a mistake here.
CLI::Validator integer_in(int64_t low, int64_t high);
CLI::Validator one_of(const std::vector<std::string>& names);

// Several lines: program and version, commit, compiler, libraries.
std::string version_text(const std::string& program);

// "512M", "1GiB", "2e9" is refused: K M G T and KiB ... are powers of 1024, kB MB GB TB of 1000.
// Throws Error(kUsage) naming `option`.
int64_t parse_size(const std::string& text, const std::string& option);
// Throws Error(kUsage) naming `option` and the dtypes of weights.
DType parse_weight_dtype(const std::string& text, const std::string& option);

// Cores that this process may use.
int allowed_cores();

// "4.66 M", "106.85 B".
std::string count_text(int64_t count);

// "9.30 MB", "60.81 GB" (powers of 1000).
std::string bytes_text(int64_t bytes);

// One line on stderr that shows how far a long piece of work is: redrawn on a terminal, else a new
// line every few seconds.
class ProgressLine {
 public:
  explicit ProgressLine(std::string program);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // `done` and `total` in bytes; `what` is shown behind them.
  void update(int64_t done, int64_t total, std::string_view what);
  // Ends the line of a terminal.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  std::string program_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point last_;
};

}  // namespace glm
