// Cores, limits and GPUs of the hosts, as `glm_infer doctor` judges them.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <set>

#include <fmt/ranges.h>

#include "apps/doctor_judge.h"
#include "apps/infer_job.h"

namespace glm {
namespace {

// Ranks talk through files of a few MiB each in /dev/shm; NCCL takes more.
constexpr int64_t kSharedPerRank = int64_t{32} << 20;
constexpr int64_t kSharedPerGpu = int64_t{256} << 20;
// Sockets to each rank, the readers of the model file, libraries.
constexpr int64_t kFilesPerRank = 4;
constexpr int64_t kOwnFiles = 128;
constexpr int64_t kLeastLocked = int64_t{1} << 30;  // what network cards register

std::vector<std::pair<std::string, std::vector<const RankFacts*>>> by_host(
    const std::vector<RankFacts>& ranks) {
  std::vector<std::pair<std::string, std::vector<const RankFacts*>>> hosts;
  for (const RankFacts& rank : ranks) {
    auto at = std::find_if(
        hosts.begin(), hosts.end(), [&](const auto& host) { return host.first == rank.host; });
    if (at == hosts.end()) at = hosts.insert(hosts.end(), {rank.host, {}});
    at->second.push_back(&rank);
  }
  return hosts;
}

// "0-3,8"
std::string cores_text(const std::vector<int>& cores) {
  std::string text;
  for (size_t i = 0; i < cores.size();) {
    size_t end = i + 1;
    while (end < cores.size() && cores[end] == cores[end - 1] + 1) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cores[i]);
    if (end - i > 1) text += fmt::format("-{}", cores[end - 1]);
    i = end;
  }
  return text.empty() ? "none" : text;
}

std::string rank_text(const RankFacts& rank) {
  std::string text = fmt::format("rank {}: {} thread{} on core{} {}",
                                 rank.rank,
                                 rank.threads,
                                 rank.threads == 1 ? "" : "s",
                                 rank.cores.size() == 1 ? "" : "s",
                                 cores_text(rank.cores));
  if (rank.physical_cores > 0 && rank.physical_cores < static_cast<int>(rank.cores.size()))
    text += fmt::format(" (hyperthreads of {})", rank.physical_cores);
  if (rank.given.size() < rank.cores.size())
    text += fmt::format(", widened from {}", cores_text(rank.given));
  return text;
}

// Two ranks that compute on the same cores although there are enough for all.
void judge_overlap(const std::vector<const RankFacts*>& ranks, Findings& out) {
  if (ranks.size() > ranks[0]->host_cores.size()) return;  // said by the launch section
  for (size_t i = 0; i < ranks.size(); ++i)
    for (size_t j = i + 1; j < ranks.size(); ++j) {
      std::vector<int> common;
      std::set_intersection(ranks[i]->cores.begin(),
                            ranks[i]->cores.end(),
                            ranks[j]->cores.begin(),
                            ranks[j]->cores.end(),
                            std::back_inserter(common));
      if (common.empty()) continue;
      out.push_back({FindingKind::kWarning,
                     "cores",
                     fmt::format("ranks {} and {} on host {} both compute on core{} {}",
                                 ranks[i]->rank,
                                 ranks[j]->rank,
                                 ranks[i]->host,
                                 common.size() == 1 ? "" : "s",
                                 cores_text(common)),
                     "bind ranks to cores of their own: srun --cpus-per-task=N --cpu-bind=cores, "
                     "or mpirun --map-by ppr:R:node:PE=N --bind-to core"});
      return;
    }
}

void judge_threads(const std::vector<const RankFacts*>& ranks, Findings& out) {
  const auto cores = static_cast<int>(ranks[0]->host_cores.size());
  int threads = 0;
  for (const RankFacts* rank : ranks) threads += rank->threads;
  const std::string& host = ranks[0]->host;
  if (threads > cores && static_cast<int>(ranks.size()) <= cores)
    out.push_back(
        {FindingKind::kWarning,
         "cores",
         fmt::format("host {} is oversubscribed: {} threads of {} on {} core{}",
                     host,
                     threads,
                     ranks.size() == 1
                         ? fmt::format("rank {}", ranks[0]->rank)
                         : fmt::format("ranks {} to {}", ranks[0]->rank, ranks.back()->rank),
                     cores,
                     cores == 1 ? "" : "s"),
         fmt::format("leave out --threads, or give at most {}",
                     std::max<size_t>(1, static_cast<size_t>(cores) / ranks.size()))});
  for (const RankFacts* rank : ranks) {
    if (rank->threads <= static_cast<int>(rank->cores.size()) || threads > cores) continue;
    out.push_back({FindingKind::kWarning,
                   "cores",
                   fmt::format("{} has {} threads on {} core{}",
                               place_of(*rank),
                               rank->threads,
                               rank->cores.size(),
                               rank->cores.size() == 1 ? "" : "s"),
                   "leave out --threads, or give the rank more cores (--cpus-per-task, PE=N)"});
  }
  const double quota = ranks[0]->cpu_quota;
  if (quota > 0 && quota < threads)
    out.push_back({FindingKind::kWarning,
                   "cores",
                   fmt::format("the control group of host {} gives {:.3g} cores' worth of time to "
                               "{} threads",
                               host,
                               quota,
                               threads),
                   "raise the container's CPU limit, or use fewer --threads"});
}

Finding limit_warning(const std::string& text, const std::string& advice) {
  return {FindingKind::kWarning, "limits", text, advice};
}

void judge_host_limits(const std::vector<const RankFacts*>& ranks, size_t world, Findings& out) {
  const RankFacts& first = *ranks[0];
  int64_t gpus = 0;
  for (const RankFacts* rank : ranks) gpus += rank->device_id.empty() ? 0 : 1;
  const auto count = static_cast<int64_t>(ranks.size());
  const int64_t shared = count * kSharedPerRank + gpus * kSharedPerGpu;
  if (count > 1 && first.shared_memory_free < shared)
    out.push_back(limit_warning(
        fmt::format("/dev/shm of host {} has {:.2f} GB free; {} ranks may want {:.2f} GB",
                    first.host,
                    gigabytes(first.shared_memory_free),
                    count,
                    gigabytes(shared)),
        "give containers --shm-size=1g; remove what ended jobs have left in /dev/shm"));
  const int64_t files = kOwnFiles + kFilesPerRank * static_cast<int64_t>(world);
  if (first.open_files != kUnlimited && first.open_files < files)
    out.push_back(limit_warning(
        fmt::format(
            "{} may open {} files, {} may be wanted", place_of(first), first.open_files, files),
        fmt::format("ulimit -n {}", std::max<int64_t>(files, 4096))));
  if ((first.infiniband || gpus > 0) && first.locked_memory != kUnlimited &&
      first.locked_memory < kLeastLocked)
    out.push_back(limit_warning(
        fmt::format("{} may lock {:.3f} GB of memory only, which network cards and GPUs need",
                    place_of(first),
                    gigabytes(first.locked_memory)),
        "ulimit -l unlimited; in Slurm PropagateResourceLimitsExcept=MEMLOCK"));
}

void judge_simd(const std::vector<RankFacts>& ranks, Findings& out) {
  constexpr std::array kLevels = {"scalar", "avx2", "avx512", "vnni"};
  std::set<std::string> levels;
  for (const RankFacts& rank : ranks) {
    levels.insert(rank.simd);
    if (std::find(kLevels.begin(), kLevels.end(), rank.simd) != kLevels.end()) continue;
    out.push_back({FindingKind::kFailure,
                   "cores",
                   fmt::format("{}: {}", place_of(rank), rank.simd),
                   "unset GLM_SIMD there",
                   ExitCode::kUsage});
    return;
  }
  const RankFacts* slow = nullptr;
  for (const char* level : kLevels)
    for (const RankFacts& rank : ranks)
      if (slow == nullptr && rank.simd == level) slow = &rank;
  if (levels.size() > 1)
    out.push_back({FindingKind::kWarning,
                   "cores",
                   fmt::format("the ranks compute with different instructions: {}; {} has {} ({})",
                               fmt::join(levels, ", "),
                               place_of(*slow),
                               slow->simd,
                               slow->processor),
                   "the numbers are the same, but the slowest rank sets the pace: ask for hosts of "
                   "one kind, or divide by --capacity"});
}

}  // namespace

Findings judge_cores(const std::vector<RankFacts>& ranks) {
  Findings out;
  for (const auto& [host, here] : by_host(ranks)) {
    std::vector<std::string> texts;
    for (const RankFacts* rank : here) texts.push_back(rank_text(*rank));
    out.push_back({FindingKind::kOk,
                   "cores",
                   fmt::format("host {}: {} cores for {} ({}); {}",
                               host,
                               here[0]->host_cores.size(),
                               here.size() == 1 ? "1 rank" : fmt::format("{} ranks", here.size()),
                               here[0]->simd,
                               fmt::join(texts, "; "))});
    judge_overlap(here, out);
    judge_threads(here, out);
  }
  judge_simd(ranks, out);
  return out;
}

Findings judge_limits(const std::vector<RankFacts>& ranks) {
  Findings out;
  for (const auto& [host, here] : by_host(ranks)) {
    const RankFacts& first = *here[0];
    const auto limit = [](int64_t bytes) {
      return bytes == kUnlimited ? "unlimited" : fmt::format("{:.3f} GB", gigabytes(bytes));
    };
    out.push_back(
        {FindingKind::kOk,
         "limits",
         fmt::format(
             "host {}: {:.3f} GB of {:.3f} GB memory free for the job, /dev/shm {:.3f} GB "
             "free, locked memory {}, address space {}, open files {}",
             host,
             gigabytes(first.memory_available),
             gigabytes(first.memory),
             gigabytes(first.shared_memory_free),
             limit(first.locked_memory),
             limit(first.address_space),
             first.open_files == kUnlimited ? "unlimited" : std::to_string(first.open_files))});
    judge_host_limits(here, ranks.size(), out);
  }
  return out;
}

Findings judge_gpus(const std::vector<RankFacts>& ranks) {
  Findings out;
  for (const RankFacts& rank : ranks)
    if (!rank.gpu_error.empty())
      out.push_back({FindingKind::kFailure,
                     "gpus",
                     fmt::format("{} cannot look for GPUs: {}", place_of(rank), rank.gpu_error),
                     "check nvidia-smi on that host, or run with --device cpu",
                     ExitCode::kResources});
  std::map<std::pair<std::string, std::string>, std::vector<int>> users;  // of a GPU by host, uuid
  std::vector<std::string> on_cpu;
  bool any = false;
  for (const RankFacts& rank : ranks) {
    any = any || !rank.gpus.empty();
    if (rank.device.empty()) continue;
    if (rank.device_id.empty()) {
      on_cpu.push_back(place_of(rank));
      continue;
    }
    std::string uuid = rank.device_id;
    for (const GpuFact& gpu : rank.gpus)
      if (gpu.id == rank.device_id) uuid = gpu.uuid;
    users[{rank.host, uuid}].push_back(rank.rank);
    out.push_back({FindingKind::kOk,
                   "gpus",
                   fmt::format("{}: {}, {}, {}; sees {}",
                               place_of(rank),
                               rank.device,
                               rank.device_id,
                               uuid,
                               rank.gpus.size())});
  }
  for (const auto& [gpu, on_it] : users)
    if (on_it.size() > 1)
      out.push_back(
          {FindingKind::kWarning,
           "gpus",
           fmt::format(
               "ranks {} share {} of host {}", fmt::join(on_it, ", "), gpu.second, gpu.first),
           "start one rank for each GPU: they take turns on it, and NCCL refuses most such jobs"});
  if (!users.empty() && !on_cpu.empty())
    out.push_back({FindingKind::kWarning,
                   "gpus",
                   fmt::format("{} of {} ranks compute on the CPU, as no GPU was left: {}",
                               on_cpu.size(),
                               ranks.size(),
                               on_cpu[0]),
                   "start as many ranks on a host as it has GPUs, or divide by --capacity"});
  if (out.empty())
    out.push_back({any ? FindingKind::kOk : FindingKind::kNote,
                   "gpus",
                   any ? "GPUs are there, all ranks compute on CPUs"
                       : "none in use: all ranks compute on CPUs"});
  return out;
}

Findings judge_address_space(const std::vector<RankFacts>& ranks,
                             const std::vector<int64_t>& planned) {
  Findings out;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const RankFacts& rank = ranks[r];
    if (rank.address_space == kUnlimited) continue;
    const int64_t room = rank.address_space - rank.used_address_space;
    if (room >= planned[r]) continue;
    out.push_back(
        {FindingKind::kFailure,
         "memory",
         fmt::format("{} may take {:.3f} GB more of address space, its plan needs {:.3f} GB",
                     place_of(rank),
                     gigabytes(std::max<int64_t>(0, room)),
                     gigabytes(planned[r])),
         "ulimit -v unlimited",
         ExitCode::kResources});
    return out;
  }
  return out;
}

}  // namespace glm
