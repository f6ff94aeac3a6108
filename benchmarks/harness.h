// Timing for benchmark programs: warm-up, repeats until a count or a time limit, median
// with the 10 % and 90 % marks, one line of text or JSON per measurement, shares of the roofs
// measured in the same process. On a GPU, repeats are recorded together as a graph and timed
// between two waits. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/device.h"
#include "core/base/trace.h"
#include "kernels/roof.h"

namespace glm::bench {

struct Options {
  bool json = false;
  int threads = 1;
  int min_repeats = 30;
  double max_seconds = 1.0;  // per measurement; at least 3 repeats are done whatever they take
  std::string filter;        // runs only names that contain it
  bool cuda = false;         // on GPU 0 of this process
  int64_t roof_bytes = int64_t{1} << 30;  // that the roofs are measured over, for each thread
};

// The device of --device. Throws Error(kResources) without a GPU.
std::unique_ptr<Device> make_device(const Options& options);
// A copy on the device.
Tensor upload(Device& device, Tensor host);

// --device cpu|cuda --roof-mib N --json --threads N --repeats N --seconds S --filter TEXT. Throws
// Error(kUsage).
Options parse_options(int argc, char** argv);

struct Timing {
  int64_t repeats = 0;
  double median = 0;  // seconds
  double p10 = 0;
  double p90 = 0;
};

// `run(i)` is repeat number i, so that it can rotate over copies larger than the caches.
// On a GPU a sample is a graph of so many repeats that it takes milliseconds; each measurement of a
// device has a key of its own.
Timing measure(const Options& options,
               Device& device,
               const std::function<void(int64_t)>& run,
               uint64_t key = 1);
Timing summarise(std::vector<double> seconds);

// What the device can do at best; copies only where it is a GPU.
struct Roofs : RoofRates {
  double copied_per_second = 0;
};
Roofs measure_roofs(const Options& options, Device& device);

// Measures the roofs, prints them, then the measurements as they come.
class Report {
 public:
  Report(const Options& options, std::string program, Device& device);
  bool wants(const std::string& name) const;
  void add(const std::string& name, const Timing& timing, const Work& work) const;
  // Measures the roofs once more: what happened to the machine in the meantime.
  void finish() const;

 private:
  Options options_;
  std::string program_;
  Device& device_;
  Roofs roofs_;
};

// Of the device's last-level cache; 32 MiB where the machine does not tell, 64 MiB for GPUs.
int64_t last_level_cache_bytes(const Device& device);
// Copies of something of `bytes` that together exceed four times the last-level cache, at most
// `limit`.
int64_t cold_copies(const Device& device, int64_t bytes, int64_t limit);
std::string cpu_model();

}  // namespace glm::bench
