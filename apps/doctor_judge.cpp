// SPDX-License-Identifier: MIT
#include "apps/doctor_judge.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <set>

#include <fmt/ranges.h>

namespace glm {
namespace {

constexpr size_t kMostNamed = 4;  // ranks or hosts in one line

std::string variable(const RankFacts& rank, const std::string& name) {
  const auto at = rank.environment.find(name);
  return at == rank.environment.end() ? "" : at->second;
}

int64_t number(const std::string& text) { return std::strtoll(text.c_str(), nullptr, 10); }

// "a, b, c and 5 more"
std::string listed(const std::vector<std::string>& items) {
  const size_t n = std::min(items.size(), kMostNamed);
  std::string text = fmt::format(
      "{}", fmt::join(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(n), ", "));
  if (items.size() > n) text += fmt::format(" and {} more", items.size() - n);
  return text;
}

// The first rank of each host, in rank order.
std::vector<const RankFacts*> first_of_hosts(const std::vector<RankFacts>& ranks) {
  std::vector<const RankFacts*> first;
  std::set<std::string> seen;
  for (const RankFacts& rank : ranks)
    if (seen.insert(rank.host).second) first.push_back(&rank);
  return first;
}

// A number that a launcher has told its ranks, which is not that of the job.
void judge_announced(const RankFacts& rank, size_t world, Findings& out) {
  const bool by_mpirun = !variable(rank, "OMPI_COMM_WORLD_SIZE").empty();
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const std::string value = variable(rank, name);
    // Under mpirun the step is that of its daemons.
    if (value.empty() || (by_mpirun && std::string_view(name) != "OMPI_COMM_WORLD_SIZE")) continue;
    if (number(value) == static_cast<int64_t>(world)) continue;
    out.push_back({FindingKind::kFailure,
                   "launch",
                   fmt::format("{} says {}={}, but the job has {} rank{}",
                               place_of(rank),
                               name,
                               value,
                               world,
                               world == 1 ? "" : "s"),
                   "the launcher and this MPI library do not know each other: start with the "
                   "mpirun of the same Open MPI, or with srun --mpi=pmix",
                   ExitCode::kUsage});
    return;
  }
}

void judge_names(const std::vector<RankFacts>& ranks, Findings& out) {
  std::map<std::string, int> named;
  for (const RankFacts& rank : ranks) ++named[rank.host];
  for (const RankFacts* rank : first_of_hosts(ranks))
    if (named[rank->host] > rank->node_size)
      out.push_back(
          {FindingKind::kFailure,
           "launch",
           fmt::format("several machines are called {}: {} ranks have this host name, but "
                       "only {} share memory with rank {}",
                       rank->host,
                       named[rank->host],
                       rank->node_size,
                       rank->rank),
           "give each machine or container a host name of its own",
           ExitCode::kUsage});
  std::map<std::string, std::vector<std::string>> unknown;
  for (const RankFacts* rank : first_of_hosts(ranks))
    for (const auto& [host, why] : rank->unresolved)
      unknown[fmt::format("{}: {}", host, why)].push_back(rank->host);
  for (const auto& [what, where] : unknown)
    out.push_back({FindingKind::kWarning,
                   "launch",
                   fmt::format("no address for {} (seen from {})", what, listed(where)),
                   "add the host to /etc/hosts or the name service; mpirun and NCCL may need it"});
}

// Whether waiting ranks give their core away where ranks exceed cores.
void judge_yield(const std::vector<RankFacts>& ranks, Findings& out) {
  for (const RankFacts* rank : first_of_hosts(ranks)) {
    const auto cores = static_cast<int>(rank->host_cores.size());
    if (rank->node_size <= cores) continue;
    const bool yields = variable(*rank, "OMPI_MCA_mpi_yield_when_idle") == "1";
    out.push_back({FindingKind::kWarning,
                   "launch",
                   fmt::format("host {} has {} ranks on {} core{}{}",
                               rank->host,
                               rank->node_size,
                               cores,
                               cores == 1 ? "" : "s",
                               yields ? "" : ", and waiting ranks keep their core"),
                   yields ? "right for a try, slow for work: start at most a rank for each core"
                          : "export OMPI_MCA_mpi_yield_when_idle=1, or start fewer ranks"});
  }
}

void judge_links(const std::vector<RankFacts>& ranks, Findings& out) {
  const bool several = first_of_hosts(ranks).size() > 1;
  const bool by_mpirun = !variable(ranks[0], "OMPI_COMM_WORLD_SIZE").empty();
  if (several && by_mpirun && variable(ranks[0], "OMPI_MCA_oob_tcp_keepalive_time").empty())
    out.push_back({FindingKind::kWarning,
                   "launch",
                   "mpirun would notice a lost host after minutes only",
                   "export OMPI_MCA_oob_tcp_keepalive_time=5 OMPI_MCA_oob_tcp_keepalive_intvl=2 "
                   "OMPI_MCA_oob_tcp_keepalive_probes=3"});
}

std::string launcher_text(const RankFacts& rank) {
  const std::string job = variable(rank, "SLURM_JOB_ID");
  const std::string slurm = job.empty() ? "" : fmt::format(" in Slurm job {}", job);
  if (!variable(rank, "OMPI_COMM_WORLD_SIZE").empty()) return "by mpirun" + slurm;
  if (!variable(rank, "SLURM_STEP_NUM_TASKS").empty() && !variable(rank, "PMIX_RANK").empty())
    return "by srun" + slurm;
  return "without a launcher" + slurm;
}

// What differs between ranks: who has another value than most.
struct Difference {
  std::string usual;
  std::vector<const RankFacts*> others;
};
template <class ValueOf>
Difference difference_of(const std::vector<RankFacts>& ranks, const ValueOf& value_of) {
  std::map<std::string, size_t> counts;
  for (const RankFacts& rank : ranks) ++counts[value_of(rank)];
  Difference difference{value_of(ranks[0]), {}};
  for (const auto& [value, count] : counts)
    if (count > counts[difference.usual]) difference.usual = value;
  for (const RankFacts& rank : ranks)
    if (value_of(rank) != difference.usual) difference.others.push_back(&rank);
  return difference;
}

std::string places_text(const std::vector<const RankFacts*>& ranks) {
  std::vector<std::string> places;
  for (const RankFacts* rank : ranks) places.push_back(place_of(*rank));
  return listed(places);
}

std::string version_of(const RankFacts& rank, const std::string& what) {
  const auto at = rank.versions.find(what);
  return at == rank.versions.end() ? "" : at->second;
}

// A kind of version, whether ranks that differ in it can work together, and what to do.
struct VersionRule {
  const char* what;
  bool fails;
  const char* advice;
};
constexpr std::array kVersionRules = {
    VersionRule{"program", true, "install one version of glm_infer on all hosts"},
    VersionRule{"program file", true, "copy one build of glm_infer to all hosts"},
    VersionRule{"compiler", false, "copy one build of glm_infer to all hosts"},
    VersionRule{"MPI", true, "load the same MPI module on all hosts"},
    VersionRule{"HDF5", false, "install one build of glm_infer on all hosts"},
    VersionRule{"CUDA", false, "install the same driver on all hosts"},
    VersionRule{"NCCL", true, "load the same NCCL on all hosts, or run with --nccl off"},
};

}  // namespace

std::string place_of(const RankFacts& rank) {
  return fmt::format("rank {} on host {}", rank.rank, rank.host);
}

Findings judge_launch(const std::vector<RankFacts>& ranks) {
  Findings out;
  const auto hosts = first_of_hosts(ranks);
  out.push_back({FindingKind::kOk,
                 "launch",
                 fmt::format("{} rank{} on {} host{}, started {}; stdin of rank 0 is {}",
                             ranks.size(),
                             ranks.size() == 1 ? "" : "s",
                             hosts.size(),
                             hosts.size() == 1 ? "" : "s",
                             launcher_text(ranks[0]),
                             ranks[0].input)});
  for (const RankFacts& rank : ranks) {
    judge_announced(rank, ranks.size(), out);
    if (out.size() > 1) break;
  }
  judge_names(ranks, out);
  judge_yield(ranks, out);
  judge_links(ranks, out);
  const std::string tasks = variable(ranks[0], "SLURM_NTASKS");
  if (!tasks.empty() && number(tasks) > static_cast<int64_t>(ranks.size()))
    out.push_back(
        {FindingKind::kWarning,
         "launch",
         fmt::format(
             "the Slurm job has {} tasks, only {} of them are ranks here", tasks, ranks.size()),
         "leave out -n of srun or -np of mpirun to use them all"});
  return out;
}

Findings judge_versions(const std::vector<RankFacts>& ranks) {
  Findings out;
  for (const VersionRule& rule : kVersionRules) {
    const Difference difference =
        difference_of(ranks, [&](const RankFacts& rank) { return version_of(rank, rule.what); });
    if (difference.others.empty()) continue;
    out.push_back({rule.fails ? FindingKind::kFailure : FindingKind::kWarning,
                   "versions",
                   fmt::format("{}: {} has {}, most ranks have {}",
                               rule.what,
                               places_text(difference.others),
                               version_of(*difference.others[0], rule.what),
                               difference.usual),
                   rule.advice,
                   rule.fails ? ExitCode::kUsage : ExitCode::kOk});
  }
  const RankFacts& first = ranks[0];
  if (out.empty())
    out.push_back({FindingKind::kOk,
                   "versions",
                   fmt::format("the same everywhere: glm_infer {}, {}, HDF5 {}, CUDA {}, NCCL {}",
                               version_of(first, "program"),
                               version_of(first, "MPI"),
                               version_of(first, "HDF5"),
                               version_of(first, "CUDA"),
                               version_of(first, "NCCL"))});
  return out;
}

ExitCode code_of(const Findings& findings) {
  for (const Finding& finding : findings)
    if (finding.verdict == FindingKind::kFailure) return finding.code;
  return ExitCode::kOk;
}

}  // namespace glm
