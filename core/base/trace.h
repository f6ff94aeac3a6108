// Time spent per kind of work, for the summary of a run and for bench_forward. One Trace per rank,
// used by one thread. SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace glm {

// What a span did, as stated by kernels/cost.h: bytes that had to move and operations.
struct Work {
  double bytes = 0;
  double flops = 0;
};

struct SpanTotal {
  int64_t calls = 0;
  double seconds = 0;
  Work work;
};

class Trace {
 public:
  using Clock = std::chrono::steady_clock;
  void add(std::string_view name, double seconds, Work work);
  // Spans by name ("op.linear", "comm.all_reduce"), in alphabetical order.
  const std::map<std::string, SpanTotal, std::less<>>& totals() const { return totals_; }
  // Sum of the seconds of all spans whose name begins with `prefix`.
  double seconds_of(std::string_view prefix) const;
  void clear() { totals_.clear(); }

 private:
  std::map<std::string, SpanTotal, std::less<>> totals_;
};

// Times a scope; a null trace makes it free of effect.
class Span {
 public:
  Span(Trace* trace, std::string_view name, Work work = {})
      : trace_(trace), name_(name), work_(work), start_(Trace::Clock::now()) {}
  ~Span() {
    if (trace_ != nullptr)
      trace_->add(
          name_, std::chrono::duration<double>(Trace::Clock::now() - start_).count(), work_);
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  Trace* trace_;
  std::string_view name_;
  Work work_;
  Trace::Clock::time_point start_;
};

}  // namespace glm
