// What all programs share: the one line of an error, option parsing, the text of --version, sizes
// with units. SPDX-License-Identifier: MIT
#pragma once

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

// Parses; false when --help, --version or, alone, --generate man|bash|zsh|fish was asked for: then
// `text` holds what is to be printed.
// Throws Error(kUsage) for whatever CLI11 refuses.
bool parse_options(CLI::App& app, int argc, const char* const* argv, std::string& text);

// For CLI::Option::check. CLI11's own range check accepts NaN.
CLI::Validator number_in(double low, double high, bool low_open = false);
// Decimal digits only: what strtol forgives (blanks, signs, hex) is a mistake here.
CLI::Validator integer_in(int64_t low, int64_t high);
CLI::Validator one_of(const std::vector<std::string>& names);

// What this program was built from, and what it finds at run time.
struct Versions {
  std::string number;  // "0.1.0"
  std::string commit;
  std::string build;  // "release"
  std::string compiler, hdf5, mpi, cuda, nccl;
};
Versions program_versions();
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

}  // namespace glm
