// Logging on every rank, and the way to rank 0. SPDX-License-Identifier: MIT
#include "apps/infer_record.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <type_traits>

#include <fmt/ranges.h>

#include "apps/host_energy.h"
#include "io/run_record.h"

namespace glm {
namespace {

// Passes of all ranks together that rank 0 takes in.
constexpr int64_t kMostPasses = 2000000;
constexpr int64_t kGatheredFloats = int64_t{1} << 16;

StepLog::Limits log_limits(const Job& job, int ranks) {
  StepLog::Limits limits;
  limits.passes = static_cast<size_t>(std::clamp<int64_t>(kMostPasses / ranks, 1000, 100000));
  const Placement& placement = job.placement;
  limits.first_layer = placement.layers().begin;
  limits.n_layers = placement.layers().size();
  // Slices of the same experts see the same rows.
  if (job.config.is_moe() && placement.coord.expert_slice == 0)
    limits.n_experts = placement.experts.begin(placement.coord.expert + 1) -
                       placement.experts.begin(placement.coord.expert);
  return limits;
}

// Cores that do not share one with another hardware thread of the list.
size_t physical_cores(const std::vector<int>& cores) {
  std::set<std::string> siblings;
  for (const int core : cores) {
    std::ifstream in(
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", core));
    std::string line;
    std::getline(in, line);
    siblings.insert(line.empty() ? std::to_string(core) : line);
  }
  return siblings.size();
}

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name") && line.find(": ") != line.npos)
      return escaped(line.substr(line.find(": ") + 2), 128);
  return "unknown";
}

template <class T>
void put(std::vector<std::byte>& out, const std::vector<T>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto n = static_cast<int64_t>(values.size());
  const auto* head = reinterpret_cast<const std::byte*>(&n);
  out.insert(out.end(), head, head + sizeof n);
  const auto* data = reinterpret_cast<const std::byte*>(values.data());
  out.insert(out.end(), data, data + values.size() * sizeof(T));
}

template <class T>
std::vector<T> get(std::span<const std::byte>& in) {
  int64_t n = 0;
  GLM_CHECK(in.size() >= sizeof n, "a record of {} bytes", in.size());
  std::memcpy(&n, in.data(), sizeof n);
  in = in.subspan(sizeof n);
  GLM_CHECK(n >= 0 && static_cast<size_t>(n) <= in.size() / sizeof(T),
            "{} values in {} bytes of a record",
            n,
            in.size());
  std::vector<T> values(static_cast<size_t>(n));
  std::memcpy(values.data(), in.data(), values.size() * sizeof(T));
  in = in.subspan(values.size() * sizeof(T));
  return values;
}

RecordedRank unpacked(std::span<const std::byte> bytes) {
  RecordedRank rank;
  const std::vector<char> facts = get<char>(bytes);
  rank.facts = Json::parse(std::string(facts.begin(), facts.end()));
  rank.passes = get<StepLog::Pass>(bytes);
  rank.expert_counts = get<int64_t>(bytes);
  rank.expert_trace = get<int32_t>(bytes);
  return rank;
}

// Rank by rank, so that rank 0 holds one more than it keeps.
std::vector<RecordedRank> gather_ranks(Communicator& world, std::vector<std::byte> mine) {
  int64_t bytes = static_cast<int64_t>(mine.size());
  if (world.rank() != 0) {
    world.send(host_tensor(&bytes, DType::kU8, {static_cast<int64_t>(sizeof bytes)}), 0);
    world.send(host_tensor(mine.data(), DType::kU8, {bytes}), 0);
    return {};
  }
  std::vector<RecordedRank> ranks = {unpacked(mine)};
  for (int peer = 1; peer < world.size(); ++peer) {
    world.recv(host_tensor(&bytes, DType::kU8, {static_cast<int64_t>(sizeof bytes)}), peer);
    mine.resize(static_cast<size_t>(bytes));
    world.recv(host_tensor(mine.data(), DType::kU8, {bytes}), peer);
    ranks.push_back(unpacked(mine));
  }
  return ranks;
}

// The shortest time of each verb over the ranks of the group; as many as all of them have.
std::vector<float> least_seconds(Communicator& group, const std::vector<StepLog::Verb>& verbs) {
  const auto size = static_cast<size_t>(group.size());
  std::vector<float> mine, all;
  for (const StepLog::Verb& verb : verbs) mine.push_back(verb.seconds);
  const auto gather = [&](const float* data, int64_t n) {
    all.resize(size * static_cast<size_t>(n));
    const std::vector<int64_t> rows(size, n);
    group.all_gather(host_tensor(all.data(), DType::kF32, {n * group.size()}),
                     host_tensor(const_cast<float*>(data), DType::kF32, {n}),
                     rows);
  };
  const auto n_mine = static_cast<float>(mine.size());
  gather(&n_mine, 1);
  const auto n = static_cast<int64_t>(*std::min_element(all.begin(), all.end()));
  std::vector<float> least;
  for (int64_t at = 0; at < n; at += kGatheredFloats) {
    const int64_t piece = std::min(kGatheredFloats, n - at);
    gather(mine.data() + at, piece);
    for (int64_t i = 0; i < piece; ++i) {
      float best = all[static_cast<size_t>(i)];
      for (int p = 1; p < group.size(); ++p)
        best = std::min(best, all[static_cast<size_t>(p * piece + i)]);
      least.push_back(best);
    }
  }
  return least;
}

}  // namespace

RunRecorder::RunRecorder(MpiSession& session, const Job& job, ProcessGrid& grid)
    : session_(session), job_(job), grid_(grid) {
  if (!job.options.record) return;
  log_ = std::make_unique<StepLog>(log_limits(job, session.world().size()));
  if (session.node_rank() == 0) energy_ = std::make_unique<HostEnergy>();
  session.context().log = log_.get();
}

RunRecorder::~RunRecorder() { session_.context().log = nullptr; }

void RunRecorder::begin_run() {
  if (log_) log_->begin_run();
}

Json RunRecorder::facts() const {
  const Placement& placement = job_.placement;
  Json facts = {{"host", session_.host()},
                {"node_rank", session_.node_rank()},
                {"cores", job_.cores},
                {"physical_cores", physical_cores(job_.cores)},
                {"threads", job_.threads},
                {"cpu", cpu_name()},
                {"layers", {placement.layers().begin, placement.layers().end}},
                {"first_expert", placement.experts.begin(placement.coord.expert)},
                {"n_experts", log_limits(job_, 1).n_experts},
                {"left_out", log_->left_out()}};
  if (energy_) facts["energy"] = energy_->report();
  return facts;
}

void RunRecorder::split_waits() {
  static const std::vector<StepLog::Verb> kNone;
  for (Communicator* group : {&grid_.tensor(), &grid_.exchange(), &grid_.slices()}) {
    if (group->size() == 1) continue;
    const auto& all = log_->verbs();
    const auto found = std::find_if(
        all.begin(), all.end(), [&](const auto& known) { return known.first == group->name(); });
    log_->split_waits(group->name(),
                      least_seconds(*group, found == all.end() ? kNone : found->second));
  }
}

RecordedRun RunRecorder::finish() {
  RecordedRun run;
  if (!log_) return run;
  session_.context().log = nullptr;
  const std::string said = facts().dump();
  if (!job_.uses_gpus) split_waits();
  std::vector<std::byte> bytes;
  put(bytes, std::vector<char>(said.begin(), said.end()));
  put(bytes, log_->passes());
  put(bytes, log_->expert_counts());
  put(bytes, log_->expert_trace());
  run.ranks = gather_ranks(session_.world(), std::move(bytes));
  log_.reset();
  return run;
}

void check_record(MpiSession& session, const Job& job) {
  if (!job.options.record) return;
  const std::string& path = *job.options.record;
  session.on_root([&] {
    std::error_code ignored;  // of a file that does not exist yet
    if (std::filesystem::equivalent(path, job.source.path, ignored))
      fail(ExitCode::kUsage, "--record {} is the model file itself", escaped(path));
    const RunRecordFile trial(path);
  });
}

}  // namespace glm
