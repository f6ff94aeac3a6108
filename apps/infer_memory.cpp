// What memory there is, and whether a job's plan fits. SPDX-License-Identifier: MIT
#include <algorithm>
#include <fstream>

#include "apps/infer_grid.h"
#include "apps/infer_job.h"

namespace glm {
namespace {

// A line "VmHWM:   1234 kB" of /proc/self/status or /proc/meminfo, in bytes.
int64_t proc_kilobytes(const char* file, const std::string& key) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line))
    if (line.starts_with(key)) return std::stoll(line.substr(key.size() + 1)) * 1024;
  return 0;
}

int64_t first_number(const char* file) {
  std::ifstream in(file);
  int64_t value = 0;
  return in >> value ? value : -1;
}

}  // namespace

int64_t resident_bytes() { return proc_kilobytes("/proc/self/status", "VmRSS:"); }
int64_t peak_resident_bytes() { return proc_kilobytes("/proc/self/status", "VmHWM:"); }

void forget_peak_resident() { std::ofstream("/proc/self/clear_refs") << "5"; }

int64_t available_bytes() {
  int64_t available = proc_kilobytes("/proc/meminfo", "MemAvailable:");
  // A job's control group may allow less than the host has (v2, then v1).
  const int64_t limits[2][2] = {
      {first_number("/sys/fs/cgroup/memory.max"), first_number("/sys/fs/cgroup/memory.current")},
      {first_number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
       first_number("/sys/fs/cgroup/memory/memory.usage_in_bytes")}};
  for (const auto& [limit, used] : limits)
    if (limit > 0 && used >= 0) available = std::min(available, std::max<int64_t>(0, limit - used));
  return available;
}

void check_capacity(const Job& job) {
  if (job.options.capacity.empty()) return;
  const int rank = rank_over_capacity(job.plan, job.capacities);
  if (rank < 0) return;
  const auto r = static_cast<size_t>(rank);
  fail(ExitCode::kResources,
       "rank {} needs {:.3f} GB, its --capacity is {:.3f} GB; use more ranks, a smaller dtype or a "
       "smaller --context, or another grid (--dry-run prints the plan)",
       rank,
       gigabytes(job.plan.ranks[r].total_bytes()),
       gigabytes(job.capacities[r]));
}

void check_memory(MpiSession& session, const Job& job) {
  const JobRanks ranks = measure_ranks(session, *job.device, job.options.memory_fraction);
  session.on_root([&] {
    check_capacity(job);
    for (const auto& [memory, need] : memory_needs(job.plan, ranks))
      if (need.needed > need.available)
        fail(ExitCode::kResources,
             "{} has {:.3f} GB of memory left for the job, its ranks need {:.3f} GB (weights of "
             "the model {:.3f} GB); use more hosts or GPUs, a smaller dtype or a smaller --context "
             "(--dry-run prints the plan){}",
             memory,
             gigabytes(need.available),
             gigabytes(need.needed),
             gigabytes(job.plan.model_bytes),
             job.advice.empty() ? "" : "; these would fit: " + job.advice);
  });
}

}  // namespace glm
