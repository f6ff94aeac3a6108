// SPDX-License-Identifier: MIT
#include "apps/doctor_checks.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "apps/infer_grid.h"

namespace glm {
namespace {

constexpr int64_t kMessageBytes = int64_t{64} << 10;  // to each other rank
constexpr int64_t kAllMessages = int64_t{16} << 20;   // of a rank, together
constexpr int kSums = 20;
constexpr int64_t kSumFloats = 1024;
constexpr double kSlowSum = 2e-3;      // seconds
constexpr int64_t kSampledBlocks = 4;  // on each rank
constexpr int64_t kTight = 95;         // percent of a memory

uint8_t pattern(int from, int to, int64_t i) {
  return static_cast<uint8_t>(31 * from + 17 * to + 7 * i + (i >> 8));
}

// Peers whose bytes did not arrive as they were sent.
std::vector<std::string> wrong_peers(Communicator& world) {
  const int n = world.size();
  const int64_t bytes = std::clamp<int64_t>(kAllMessages / n, 64, kMessageBytes);
  std::vector<uint8_t> in(static_cast<size_t>(bytes * n));
  std::vector<uint8_t> out(in.size());
  for (int p = 0; p < n; ++p)
    for (int64_t i = 0; i < bytes; ++i)
      in[static_cast<size_t>(p * bytes + i)] = pattern(world.rank(), p, i);
  const std::vector<int64_t> rows(static_cast<size_t>(n), 1);
  world.all_to_all(host_tensor(out.data(), DType::kU8, {n, bytes}),
                   rows,
                   host_tensor(in.data(), DType::kU8, {n, bytes}),
                   rows);
  std::vector<std::string> wrong;
  for (int p = 0; p < n; ++p)
    for (int64_t i = 0; i < bytes; ++i) {
      if (out[static_cast<size_t>(p * bytes + i)] == pattern(p, world.rank(), i)) continue;
      wrong.push_back(std::to_string(p));
      break;
    }
  return wrong;
}

// Seconds of a sum over all ranks; below 0 where it is wrong.
double time_of_sum(Communicator& world) {
  const auto n = static_cast<float>(world.size());
  std::vector<float> values(static_cast<size_t>(kSumFloats));
  bool right = true;
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kSums; ++i) {
    std::fill(values.begin(), values.end(), static_cast<float>(world.rank() + 1));
    world.all_reduce_sum(host_tensor(values.data(), DType::kF32, {1, kSumFloats}));
    for (const float value : values) right = right && value == n * (n + 1) / 2;
  }
  return right ? seconds_since(start) / kSums : -1;
}

// Plane number `block` belongs to, and reads it; the reader compares its checksum.
void read_block(WeightReader& reader, const ModelIndex& index, int64_t block) {
  for (const TensorEntry& entry : index.entries) {
    const auto blocks = [&](int64_t bytes) {
      return (bytes + index.block_bytes - 1) / index.block_bytes;
    };
    const int64_t values = blocks(entry.values_bytes);
    const int64_t at = block - entry.first_block;
    if (at < 0 || at >= values + blocks(entry.scales_bytes)) continue;
    char byte = 0;
    const bool in_values = at < values;
    const WeightReader::Range range[] = {
        {(in_values ? at : at - values) * index.block_bytes, 1, &byte}};
    reader.read(
        entry, in_values ? WeightReader::Plane::kValues : WeightReader::Plane::kScales, range);
    return;
  }
}

// "" or what was wrong.
std::string sample_file(const ModelIndex& index, int rank, int64_t& bytes_read) {
  try {
    WeightReader reader(index, true);
    const auto total = static_cast<int64_t>(index.checksums.size());
    const int64_t count = std::min(kSampledBlocks, total);
    for (int64_t i = 0; i < count; ++i)
      read_block(reader, index, (i * total / count + rank * 7919) % total);
    bytes_read = reader.bytes_read();
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

std::string memories_text(const std::map<std::string, MemoryNeed>& needs) {
  std::vector<std::pair<std::string, MemoryNeed>> order(needs.begin(), needs.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.second.available - a.second.needed < b.second.available - b.second.needed;
  });
  constexpr size_t kMost = 4;
  std::vector<std::string> texts;
  for (size_t i = 0; i < std::min(order.size(), kMost); ++i)
    texts.push_back(fmt::format("{} {:.3f} of {:.3f} GB",
                                order[i].first,
                                gigabytes(order[i].second.needed),
                                gigabytes(order[i].second.available)));
  std::string text = fmt::format("{}", fmt::join(texts, "; "));
  if (order.size() > kMost) text += fmt::format("; {} others have more left", order.size() - kMost);
  return text;
}

}  // namespace

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Finding failure_of(const std::string& section, const Error& error, const std::string& advice) {
  return {FindingKind::kFailure, section, error.what(), advice, error.code()};
}

Findings check_messages(MpiSession& session) {
  Communicator& world = session.world();
  if (world.size() == 1) return {{FindingKind::kNote, "messages", "one rank sends none"}};
  const std::string wrong = fmt::format("{}", fmt::join(wrong_peers(world), ", "));
  const double seconds = time_of_sum(world);
  const std::vector<std::string> wrongs = all_gather_strings(world, wrong);
  const std::vector<std::string> times = all_gather_strings(world, fmt::format("{:.9f}", seconds));
  const std::vector<std::string> hosts = all_gather_strings(world, session.host());
  Findings out;
  double slowest = 0;
  const char* advice = "have the network between these hosts tested; run the doctor on fewer hosts";
  for (size_t r = 0; r < wrongs.size(); ++r) {
    const double time = std::stod(times[r]);
    slowest = std::max(slowest, time);
    if (!wrongs[r].empty() || time < 0)
      out.push_back({FindingKind::kFailure,
                     "messages",
                     wrongs[r].empty()
                         ? fmt::format("rank {} on host {} gets a wrong sum", r, hosts[r])
                         : fmt::format("rank {} on host {} gets other bytes than ranks {} sent",
                                       r,
                                       hosts[r],
                                       wrongs[r]),
                     advice,
                     ExitCode::kCommunication});
  }
  if (!out.empty()) return out;
  out.push_back({FindingKind::kOk,
                 "messages",
                 fmt::format("all pairs of ranks get what was sent; a sum of {} KiB over all takes "
                             "{:.3f} ms",
                             kSumFloats * 4 / 1024,
                             1e3 * slowest)});
  if (slowest > kSlowSum)
    out.push_back({FindingKind::kWarning,
                   "messages",
                   fmt::format("a sum over all ranks takes {:.1f} ms, some microseconds are usual",
                               1e3 * slowest),
                   "look for other work on the hosts, more ranks than cores, or ranks that talk "
                   "over a slow interface (--mca btl_tcp_if_include IFACE)"});
  return out;
}

Findings check_blocks(MpiSession& session, const Job& job) {
  const ModelIndex& index = *job.source.index;
  Communicator& world = session.world();
  int64_t bytes = 0;
  const auto start = std::chrono::steady_clock::now();
  const std::string problem = sample_file(index, world.rank(), bytes);
  const double rate = static_cast<double>(bytes) / std::max(1e-6, seconds_since(start));
  const std::vector<std::string> problems = all_gather_strings(world, problem);
  const std::vector<std::string> rates = all_gather_strings(world, fmt::format("{:.0f}", rate));
  const std::vector<std::string> hosts = all_gather_strings(world, session.host());
  const auto total = static_cast<int64_t>(index.checksums.size());
  Findings out;
  double slowest = rate;
  for (size_t r = 0; r < problems.size(); ++r) {
    slowest = std::min(slowest, std::stod(rates[r]));
    if (!problems[r].empty())
      out.push_back({FindingKind::kFailure,
                     "model",
                     fmt::format("rank {} on host {}: {}", r, hosts[r], problems[r]),
                     "copy the model to that host again; glm_convert --verify FILE reads all of it",
                     ExitCode::kModelFile});
  }
  if (out.empty())
    out.push_back({FindingKind::kOk,
                   "model",
                   fmt::format("{}: {}, {:.3f} GB, the same on all ranks; {} blocks of each rank "
                               "have their checksums{}",
                               escaped(index.path),
                               index.architecture,
                               gigabytes(index.file_bytes),
                               std::min(kSampledBlocks, total),
                               total < 2 * kSampledBlocks
                                   ? ""
                                   : fmt::format(", read at {:.2f} GB/s by the slowest",
                                                 gigabytes(slowest)))});
  return out;
}

Findings check_plan(MpiSession& session, const Job& job, const std::vector<RankFacts>& ranks) {
  try {
    check_memory(session, job);
  } catch (const AgreedError& error) {
    return {failure_of("memory", error, "see docs/troubleshooting.md, \"It does not fit\"")};
  }
  const auto needs =
      memory_needs(job.plan, measure_ranks(session, *job.device, job.options.memory_fraction));
  std::vector<int64_t> planned;
  for (size_t r = 0; r < ranks.size(); ++r)
    planned.push_back(ranks[r].device_id.empty()
                          ? job.plan.ranks[r].total_bytes() - job.plan.ranks[r].process_bytes
                          : 0);
  Findings out = judge_address_space(ranks, planned);
  if (!out.empty()) return out;
  out.push_back({FindingKind::kOk,
                 "memory",
                 fmt::format("the plan fits on {}{}: {}",
                             job.plan.shape.text(),
                             job.grid_reason.empty() ? "" : fmt::format(" ({})", job.grid_reason),
                             memories_text(needs))});
  for (const auto& [memory, need] : needs)
    if (need.needed > need.available / 100 * kTight)
      out.push_back({FindingKind::kWarning,
                     "memory",
                     fmt::format("{} will be full: {:.3f} of {:.3f} GB",
                                 memory,
                                 gigabytes(need.needed),
                                 gigabytes(need.available)),
                     "leave room for other work: a smaller --context, or more hosts"});
  return out;
}

}  // namespace glm
