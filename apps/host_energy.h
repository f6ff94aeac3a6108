// Energy that this host has taken since a moment, where it can be read: processors and memory from
// the kernel's powercap counters (RAPL), GPUs from NVML. The counters are the host's, whoever uses
// it. SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "io/json.h"

namespace glm {

class HostEnergy {
 public:
  // Begins to count. A thread looks at the counters each `pause`, as some of them wrap around
  // within minutes.
  explicit HostEnergy(const std::filesystem::path& powercap = "/sys/class/powercap",
                      std::chrono::milliseconds pause = std::chrono::seconds(5));
  ~HostEnergy();
  HostEnergy(const HostEnergy&) = delete;
  HostEnergy& operator=(const HostEnergy&) = delete;

  // {"joules", "counters": {name: joules}}, or {"absent": why}.
  Json report();

 private:
  struct Counter {
    std::string name;
    std::function<std::optional<double>()> read;  // joules
    double range = 0;                             // where it wraps around; 0: it does not
    double last = 0;
    double sum = 0;
  };
  void add(Counter counter);
  void find_powercap(const std::filesystem::path& folder);
  void find_gpus();
  void look();

  std::vector<Counter> counters_;
  std::vector<std::string> missing_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace glm
