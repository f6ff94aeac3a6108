// SPDX-License-Identifier: MIT
#include "apps/infer_grid.h"

#include <algorithm>
#include <limits>

namespace glm {
namespace {

// Of a prompt and an answer whose lengths are not known yet.
constexpr int64_t kUsualPrompt = 512;
constexpr int64_t kUsualAnswer = 128;
// Of a GPU's free memory: graphs, kernels and NCCL take some that no plan knows.
constexpr double kGpuFraction = 0.95;

std::vector<int64_t> gather_numbers(Communicator& world, int64_t value) {
  std::vector<int64_t> out;
  for (const std::string& text : all_gather_strings(world, std::to_string(value)))
    out.push_back(std::stoll(text));
  return out;
}

Machine machine_of(const Job& job, const JobRanks& ranks) {
  Machine machine;
  machine.cores = ranks.cores;
  machine.threads = job.threads;
  machine.hosts.assign(static_cast<size_t>(ranks.count), 0);
  std::map<std::string, int> numbers;
  for (size_t rank = 0; rank < ranks.hosts.size(); ++rank)
    machine.hosts[rank] =
        numbers.try_emplace(ranks.hosts[rank], static_cast<int>(numbers.size())).first->second;
  return machine;
}

}  // namespace

JobRanks measure_ranks(MpiSession& session, Device& device, std::optional<double> memory_fraction) {
  Communicator& world = session.world();
  world.barrier();  // the transport's own buffers belong to the process
  JobRanks ranks;
  ranks.count = world.size();
  const bool gpu = !device.is_host();
  const std::string host = fmt::format("host {}", session.host());
  const double part = memory_fraction.value_or(gpu ? kGpuFraction : 1.0);
  const int64_t available = gpu ? device.memory().free : available_bytes();
  ranks.process_bytes = gather_numbers(world, gpu ? 0 : peak_resident_bytes());
  ranks.hosts = all_gather_strings(world, session.host());
  ranks.memories =
      all_gather_strings(world, gpu ? fmt::format("GPU {} of {}", device.id(), host) : host);
  ranks.available =
      gather_numbers(world, static_cast<int64_t>(static_cast<double>(available) * part));
  const std::vector<int64_t> cores =
      gather_numbers(world, static_cast<int64_t>(cpu_share(0, 1).cores.size()));
  ranks.cores = std::max(1, static_cast<int>(*std::min_element(cores.begin(), cores.end())));
  return ranks;
}

JobRanks imagined_ranks(int count, int threads) {
  JobRanks ranks;
  ranks.count = count;
  ranks.cores = count * threads;
  return ranks;
}

Capacities job_capacities(const InferOptions& options, const JobRanks& ranks) {
  const auto count = static_cast<size_t>(ranks.count);
  if (options.capacity.empty()) {
    Capacities measured = measured_capacities(ranks.memories, ranks.available);
    for (size_t rank = 0; rank < measured.size(); ++rank)
      measured[rank] += ranks.process_bytes[rank];
    return measured;
  }
  if (options.capacity.size() != 1 && options.capacity.size() != count)
    fail(ExitCode::kUsage,
         "--capacity has {} values for {} rank{}: give one for all ranks, or one for each",
         options.capacity.size(),
         count,
         count == 1 ? "" : "s");
  Capacities out;
  for (size_t rank = 0; rank < count; ++rank)
    out.push_back(
        static_cast<int64_t>(options.capacity[options.capacity.size() == 1 ? 0 : rank] * 1e9));
  return out;
}

std::map<std::string, MemoryNeed> memory_needs(const MemoryPlan& plan, const JobRanks& ranks) {
  std::map<std::string, MemoryNeed> needs;
  for (size_t r = 0; r < ranks.memories.size(); ++r) {
    const RankPlan& rank = plan.ranks[r];
    auto [need, added] =
        needs.try_emplace(ranks.memories[r], MemoryNeed{0, std::numeric_limits<int64_t>::max()});
    need->second.needed += rank.total_bytes() - rank.process_bytes;
    need->second.available = std::min(need->second.available, ranks.available[r]);
  }
  return needs;
}

GridChoice choose_job_grid(const Job& job,
                           const JobRanks& ranks,
                           const std::function<bool(const GridShape&)>& fits) {
  Workload workload;
  workload.prompt_tokens = job.options.benchmark ? job.options.prompt_tokens : kUsualPrompt;
  workload.answer_tokens = job.options.max_tokens.value_or(kUsualAnswer);
  workload.sequences = job.model.limits.max_sequences;
  workload.chunk_rows = job.model.limits.max_rows;
  return choose_grid(job.config,
                     job.stored,
                     machine_of(job, ranks),
                     workload,
                     job.options.exchange == ExchangeKind::kReduce,
                     fits);
}

}  // namespace glm
