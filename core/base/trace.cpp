// SPDX-License-Identifier: MIT
#include "core/base/trace.h"

namespace glm {

void Trace::add(std::string_view name, double seconds, Work work) {
  auto found = totals_.find(name);
  if (found == totals_.end()) found = totals_.emplace(std::string(name), SpanTotal{}).first;
  SpanTotal& total = found->second;
  ++total.calls;
  total.seconds += seconds;
  total.work.bytes += work.bytes;
  total.work.flops += work.flops;
}

double Trace::seconds_of(std::string_view prefix) const {
  double sum = 0;
  for (auto it = totals_.lower_bound(prefix); it != totals_.end() && it->first.starts_with(prefix);
       ++it)
    sum += it->second.seconds;
  return sum;
}

}  // namespace glm
