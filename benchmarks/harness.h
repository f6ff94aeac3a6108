// Timing for benchmark programs: warm-up, repeats until a count or a time limit, median
// with the 10 % and 90 % marks, one line of text or JSON per measurement, shares of the roofs
// measured in the same process. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/trace.h"
#include "kernels/roof.h"

namespace glm::bench {

struct Options {
  bool json = false;
  int threads = 1;
  int min_repeats = 30;
  double max_seconds = 1.0;  // per measurement; at least 3 repeats are done whatever they take
  std::string filter;        // runs only names that contain it
};

// --json --threads N --repeats N --seconds S --filter TEXT. Throws Error(kUsage).
Options parse_options(int argc, char** argv);

struct Timing {
  int64_t repeats = 0;
  double median = 0;  // seconds
  double p10 = 0;
  double p90 = 0;
};

// `run(i)` is repeat number i, so that it can rotate over copies larger than the caches.
Timing measure(const Options& options, const std::function<void(int64_t)>& run);
Timing summarise(std::vector<double> seconds);

// With options.threads threads: the best of five passes over 1 GiB for each of them.
RoofRates measure_roofs(const Options& options);

// Measures the roofs, prints them, then the measurements as they come.
class Report {
 public:
  Report(const Options& options, std::string program);
  bool wants(const std::string& name) const;
  void add(const std::string& name, const Timing& timing, const Work& work) const;
  // Measures the roofs once more: what happened to the machine in the meantime.
  void finish() const;

 private:
  Options options_;
  std::string program_;
  RoofRates roofs_;
};

// Of this machine's last-level cache; 32 MiB where it is not told.
int64_t last_level_cache_bytes();
// Copies of something of `bytes` that together exceed four times the last-level cache, at most
// `limit`.
int64_t cold_copies(int64_t bytes, int64_t limit);
std::string cpu_model();

}  // namespace glm::bench
