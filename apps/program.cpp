// Shared parts of the programs. SPDX-License-Identifier: MIT
#include "apps/program.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <new>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include "apps/option_tree.h"
#include "core/base/device.h"
#include "git_version.h"
#include "parallel/nccl_version.h"

namespace glm {
namespace {

void print_error(const std::string& program, std::string_view message) {
  const std::string line = fmt::format("{}: error: {}\n", program, message);
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

// Line breaks of messages that others wrote.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return escaped(text, 500);
}

}  // namespace

int run_program(const std::string& program, const std::function<int()>& body) {
  try {
    const int code = body();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      fail(ExitCode::kRuntime, "cannot write to standard output");
    return code;
  } catch (const Error& error) {
    print_error(program, error.what());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    print_error(program, "out of memory");
    return static_cast<int>(ExitCode::kResources);
  } catch (const std::system_error& error) {
    const bool threads = error.code() == std::errc::resource_unavailable_try_again;
    print_error(program, one_line(error.what()));
    return static_cast<int>(threads ? ExitCode::kResources : ExitCode::kRuntime);
  } catch (const std::exception& error) {
    print_error(program, one_line(error.what()));
    return static_cast<int>(ExitCode::kRuntime);
  }
}

bool parse_options(CLI::App& app, int argc, const char* const* argv, std::string& text) {
  // Before parsing, which may ask for more.
  if (argc == 3 && std::string_view(argv[1]) == "--generate") {
    text = generated_text(app, argv[2], GLM_VERSION);
    text.pop_back();  // the end of the last line
    return false;
  }
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::CallForVersion& version) {
    text = version.what();
  } catch (const CLI::CallForAllHelp&) {
    text = app.help("", CLI::AppFormatMode::All);
  } catch (const CLI::CallForHelp&) {
    // The help of the subcommand that was asked for.
    const auto parsed = app.get_subcommands();
    text = parsed.empty() ? app.help() : parsed.front()->help(app.get_name());
  } catch (const CLI::ParseError& error) {
    fail(ExitCode::kUsage, "{}; try --help", one_line(error.what()));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return false;
}

Versions program_versions() {
#ifdef NDEBUG
  constexpr const char* kBuild = "release";
#else
  constexpr const char* kBuild = "debug";
#endif
  return {GLM_VERSION,
          GLM_GIT_COMMIT,
          kBuild,
          GLM_COMPILER,
          GLM_HDF5_VERSION,
          GLM_MPI_VERSION,
          cuda_version_text(),
          nccl_version_text()};
}

std::string version_text(const std::string& program) {
  const Versions v = program_versions();
  return fmt::format(
      "{} {} (commit {}, {} build)\ncompiler: {}\nHDF5: {}\nMPI: {}\nCUDA: {}\nNCCL: {}",
      program,
      v.number,
      v.commit,
      v.build,
      v.compiler,
      v.hdf5,
      v.mpi,
      v.cuda,
      v.nccl);
}

CLI::Validator number_in(double low, double high, bool low_open) {
  return CLI::Validator(
      [=](std::string& text) -> std::string {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        const bool inside = (low_open ? value > low : value >= low) && value <= high;
        if (!text.empty() && end == text.c_str() + text.size() && inside) return {};
        return fmt::format(
            "'{}' is not a number {}{}",
            escaped(text),
            low_open ? fmt::format("above {}", low) : fmt::format("of at least {}", low),
            std::isinf(high) ? "" : fmt::format(" and at most {}", high));
      },
      "");
}

CLI::Validator integer_in(int64_t low, int64_t high) {
  return CLI::Validator(
      [=](std::string& text) -> std::string {
        const bool digits = !text.empty() && text.size() <= 19 &&
                            text.find_first_not_of("0123456789") == std::string::npos;
        if (digits) {
          const unsigned long long value = std::strtoull(text.c_str(), nullptr, 10);
          if (value >= static_cast<unsigned long long>(low) &&
              value <= static_cast<unsigned long long>(high))
            return {};
        }
        return fmt::format("'{}' is not an integer from {} to {}", escaped(text), low, high);
      },
      "");
}

CLI::Validator one_of(const std::vector<std::string>& names) {
  return CLI::Validator(
      [names](std::string& text) -> std::string {
        if (std::find(names.begin(), names.end(), text) != names.end()) return {};
        return fmt::format("'{}' is not one of {}", escaped(text), fmt::join(names, ", "));
      },
      "");
}

int64_t parse_size(const std::string& text, const std::string& option) {
  struct Unit {
    std::string_view name;
    int64_t bytes;
  };
  constexpr int64_t kKilo = 1000;
  constexpr int64_t kKibi = 1024;
  static constexpr std::array kUnits = {
      Unit{"", 1},
      Unit{"B", 1},
      Unit{"K", kKibi},
      Unit{"KiB", kKibi},
      Unit{"kB", kKilo},
      Unit{"M", kKibi * kKibi},
      Unit{"MiB", kKibi * kKibi},
      Unit{"MB", kKilo * kKilo},
      Unit{"G", kKibi * kKibi * kKibi},
      Unit{"GiB", kKibi * kKibi * kKibi},
      Unit{"GB", kKilo * kKilo * kKilo},
      Unit{"T", kKibi * kKibi * kKibi * kKibi},
      Unit{"TiB", kKibi * kKibi * kKibi * kKibi},
      Unit{"TB", kKilo * kKilo * kKilo * kKilo},
  };
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view suffix(end, static_cast<size_t>(text.data() + text.size() - end));
  if (error == std::errc() && number > 0)
    for (const Unit& unit : kUnits)
      if (unit.name == suffix && number <= std::numeric_limits<int64_t>::max() / unit.bytes)
        return number * unit.bytes;
  fail(ExitCode::kUsage,
       "{}: \"{}\" is not a size; write for example 512M or 2GiB",
       option,
       escaped(text));
}

DType parse_weight_dtype(const std::string& text, const std::string& option) {
  const auto dtype = parse_dtype(text);
  if (!dtype || *dtype == DType::kI32 || *dtype == DType::kU8)
    fail(ExitCode::kUsage,
         "{}: \"{}\" is not one of f32, bf16, f16, q80, q40",
         option,
         escaped(text));
  return *dtype;
}

int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

std::string count_text(int64_t count) {
  const auto n = static_cast<double>(count);
  if (count < 10'000) return fmt::format("{}", count);
  if (count < 1'000'000) return fmt::format("{:.2f} k", n / 1e3);
  if (count < 1'000'000'000) return fmt::format("{:.2f} M", n / 1e6);
  return fmt::format("{:.2f} B", n / 1e9);
}

std::string bytes_text(int64_t bytes) {
  const auto n = static_cast<double>(bytes);
  return bytes < 1'000'000'000 ? fmt::format("{:.2f} MB", n / 1e6)
                               : fmt::format("{:.2f} GB", n / 1e9);
}

}  // namespace glm
