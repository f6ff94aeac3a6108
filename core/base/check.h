// The error policy. Libraries throw glm::Error with the exit code of the job; they never print and
// never exit. main prints the one line "glm_<program>: error: ..." and ends all ranks
// (parallel/mpi_session.h). SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace glm {

// Exit codes of every program, the same on all ranks. docs/running.md lists them for users.
enum class ExitCode : int {
  kOk = 0,
  kRuntime = 1,        // run-time failure
  kUsage = 2,          // bad option, configuration or launch
  kModelFile = 3,      // bad or corrupt model file or checkpoint folder
  kResources = 4,      // memory, disk or device does not suffice
  kCommunication = 5,  // communication failure or deadline
  kNumerical = 6,      // a numerical check failed
  kDrained = 75,       // stopped on request, requeue
};

// An error with the exit code it leads to. The message says what was wrong, where, and what to do,
// in one line.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

template <class... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void check_failed(const char* condition,
                               const char* file,
                               int line,
                               const std::string& message);

// `text` from a file or a user, made fit for one line of a message: control bytes and bytes that
// are not UTF-8 become \xNN, and what is longer than `limit` bytes is cut with "...".
std::string escaped(std::string_view text, size_t limit = 200);

// a * b and a + b of sizes from untrusted input. Throws Error(code) naming `what` on overflow or a
// negative operand.
int64_t checked_mul(int64_t a, int64_t b, std::string_view what, ExitCode code);
int64_t checked_add(int64_t a, int64_t b, std::string_view what, ExitCode code);

}  // namespace glm

// A broken invariant of our own: throws Error(kRuntime) with file and line. Always on.
#define GLM_CHECK(condition, ...)                                                      \
  do {                                                                                 \
    if (!(condition)) [[unlikely]]                                                     \
      ::glm::check_failed(#condition, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (false)

// The same for hot paths: only in debug builds.
#ifdef NDEBUG
#define GLM_ASSERT(condition, ...) static_cast<void>(0)
#else
#define GLM_ASSERT(condition, ...) GLM_CHECK(condition, __VA_ARGS__)
#endif
