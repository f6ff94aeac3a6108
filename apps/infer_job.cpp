// SPDX-License-Identifier: MIT
#include "apps/infer_job.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>

#include "core/engine/engine.h"

namespace glm {
namespace {

// Rows of a prompt that run together; more rows share each read of an expert, and cost scratch.
constexpr int64_t kChunkRows = 512;
// With --dump-logits every row has logits, which the leader holds twice.
constexpr int64_t kDumpRows = 64;
constexpr int64_t kDefaultContext = 8192;
// Requests of a batch that run at once on a data rank.
constexpr int64_t kBatchSequences = 8;

double gigabytes(int64_t bytes) { return static_cast<double>(bytes) * 1e-9; }

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

std::string serialized(const ModelSource& source) {
  return source.index ? "I" + source.index->serialized() : "T";
}

// Rank 0's view of the model on all ranks. Only rank 0 needs the texts of a folder.
ModelSource shared_source(MpiSession& session, const InferOptions& options) {
  ModelSource source;
  session.on_root([&] {
    source = open_model_source(options.model);
    if (!source.index && !options.dry_run)
      fail(ExitCode::kUsage,
           "{} is a folder; convert it first: glm_convert {} MODEL.h5",
           escaped(options.model),
           escaped(options.model));
  });
  std::string bytes = session.world().rank() == 0 ? serialized(source) : std::string();
  broadcast_string(session.world(), bytes, 0);
  broadcast_string(session.world(), source.texts.config, 0);
  if (session.world().rank() == 0) return source;
  source.path = options.model;
  if (bytes[0] == 'I') {
    source.index = ModelIndex::deserialized(std::string_view(bytes).substr(1));
    source.texts = source.index->texts;
  }
  return source;
}

void settle_types(Job& job) {
  if (job.source.index) {
    job.stored = stored_types(*job.source.index);
    job.with_mtp = job.stored.contains("mtp.projection");
    return;
  }
  job.with_mtp = job.config.announces_mtp;
  const DTypeChoice dtypes = default_dtypes(job.options.dtype);
  for (const TensorSpec& spec : tensor_specs(job.config, job.with_mtp))
    job.stored.emplace(spec.name, stored_type(spec, job.config, dtypes));
}

// The choice of dtypes that stage_layers() balances by, as the stored tensors show it.
DTypeChoice dtypes_of(const Job& job) {
  const auto type = [&](const char* name) { return job.stored.at(name).dtype; };
  DTypeChoice choice;
  choice.embedding = type("embedding");
  choice.head = job.config.tied ? type("embedding") : type("head");
  // A layer's out projection may be f16 for its odd columns; any quantised matrix of the file shows
  // the body's type.
  choice.body = type("layers.0.attention.qkv");
  return choice;
}

void settle_limits(Job& job, int data) {
  const int64_t context =
      job.options.context.value_or(std::min(job.config.max_positions, kDefaultContext));
  if (context > job.config.max_positions)
    fail(ExitCode::kUsage,
         "--context {} is beyond the model's {} positions",
         context,
         job.config.max_positions);
  StepLimits& limits = job.model.limits;
  limits.max_context = context;
  limits.max_sequences = job.options.batch ? job.options.max_sequences.value_or(kBatchSequences)
                                           : job.options.sequences;
  limits.max_rows = std::max(std::min(context, job.options.dump_logits ? kDumpRows : kChunkRows),
                             limits.max_sequences);
  limits.max_logits = job.options.dump_logits ? limits.max_rows : data * limits.max_sequences;
  job.model.kv_blocks = limits.max_sequences * limits.max_blocks();
  if (job.options.cache_tokens)
    job.model.kv_blocks = (*job.options.cache_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  const bool plain = job.stored.at("layers.0.attention.qkv").dtype == DType::kF32;
  job.model.kv_dtype = job.options.kv_dtype.value_or(plain ? KvDType::kF32 : KvDType::kF16);
  job.model.exchange = job.options.exchange;
}

void settle_plan(Job& job, const GridShape& shape, const std::vector<int64_t>& process_bytes) {
  PlanRequest request;
  request.dtypes = dtypes_of(job);
  request.kv_dtype = job.model.kv_dtype;
  request.kv_blocks = job.model.kv_blocks;
  request.numerics = job.placement.numerics;
  request.with_mtp = job.with_mtp;
  request.stored = job.stored;
  job.plan = plan_memory(job.config, shape, request);
  job.plan.mtp_believed = job.with_mtp && !job.source.index;
  const OpsLimits limits = ops_limits(job.config, shape, job.model.limits);
  for (size_t r = 0; r < job.plan.ranks.size(); ++r) {
    RankPlan& rank = job.plan.ranks[r];
    Placement placement = job.placement;
    placement.coord = rank.coord;
    rank.buffer_bytes = model_scratch_bytes(job.config, placement, job.model) +
                        ops_scratch_bytes(job.options.ops, job.threads, limits);
    if (r == 0) rank.buffer_bytes += Engine::buffer_bytes(job.model.limits, job.config.vocab);
    if (job.source.index) rank.buffer_bytes += job.source.index->block_bytes;  // reading
    if (r < process_bytes.size()) rank.process_bytes = process_bytes[r];
  }
}

std::vector<int64_t> gather_numbers(Communicator& world, int64_t value) {
  std::vector<int64_t> out;
  for (const std::string& text : all_gather_strings(world, std::to_string(value)))
    out.push_back(std::stoll(text));
  return out;
}

// Of each host: what its ranks still need, and what it has left.
std::map<std::string, std::pair<int64_t, int64_t>> node_bytes(
    const MemoryPlan& plan,
    const std::vector<std::string>& hosts,
    const std::vector<int64_t>& available) {
  std::map<std::string, std::pair<int64_t, int64_t>> nodes;
  for (size_t r = 0; r < hosts.size(); ++r) {
    const RankPlan& rank = plan.ranks[r];
    auto [node, added] = nodes.try_emplace(hosts[r], 0, std::numeric_limits<int64_t>::max());
    node->second.first += rank.total_bytes() - rank.process_bytes;
    node->second.second = std::min(node->second.second, available[r]);
  }
  return nodes;
}

// A batch can do with fewer pages than all of its sequences at their longest would fill: takes
// pages away, down to those of one sequence, until every host has a tenth of its memory left.
void fit_cache(MpiSession& session,
               Job& job,
               const GridShape& shape,
               const std::vector<int64_t>& process_bytes) {
  Communicator& world = session.world();
  const std::vector<std::string> hosts = all_gather_strings(world, session.host());
  const std::vector<int64_t> available = gather_numbers(world, available_bytes());
  const auto fits = [&] {
    for (const auto& [host, bytes] : node_bytes(job.plan, hosts, available))
      if (bytes.first > bytes.second / 10 * 9) return false;
    return true;
  };
  const int64_t least = job.model.limits.max_blocks();
  while (!fits() && job.model.kv_blocks > least) {
    job.model.kv_blocks = std::max(least, job.model.kv_blocks * 3 / 4);
    settle_plan(job, shape, process_bytes);
  }
}

}  // namespace

int64_t resident_bytes() { return proc_kilobytes("/proc/self/status", "VmRSS:"); }
int64_t peak_resident_bytes() { return proc_kilobytes("/proc/self/status", "VmHWM:"); }

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

Job prepare_job(MpiSession& session, const InferOptions& options) {
  Job job;
  job.options = options;
  const CpuShare share = cpu_share(session.node_rank(), session.node_size());
  job.cores = share.cores;
  job.threads = options.threads.value_or(static_cast<int>(std::max<size_t>(1, share.cores.size())));
  job.widened = share.widened;
  if (options.reproducible) job.placement.numerics = Numerics::kReproducible;
  job.source = shared_source(session, options);

  Communicator& world = session.world();
  const bool planned = options.dry_run && options.ranks.has_value();
  const int n_ranks = planned ? *options.ranks : world.size();
  GridShape shape;
  session.on_root([&] {
    const ModelConfig config =
        parse_config(job.source.texts.config, job.source.name_of("config.json"));
    shape = complete_grid(options.grid, n_ranks, config.is_moe());
    if (options.exchange == ExchangeKind::kReduce && shape.expert > shape.tensor)
      fail(ExitCode::kUsage,
           "--expert-exchange reduce needs ranks that share their tokens: --expert {} must divide "
           "--tensor {}",
           shape.expert,
           shape.tensor);
  });
  job.config = parse_config(job.source.texts.config, job.source.name_of("config.json"));
  shape = complete_grid(options.grid, n_ranks, job.config.is_moe());
  session.on_root([&] {
    settle_types(job);
    settle_limits(job, shape.data);
  });
  if (world.rank() != 0) {
    settle_types(job);
    settle_limits(job, shape.data);
  }
  job.placement.shape = shape;
  job.placement.coord = grid_coord(shape, planned ? 0 : world.rank());
  job.placement.stages = stage_layers(job.config, dtypes_of(job), shape.pipeline);

  world.barrier();  // the transport's own buffers belong to the process
  const std::vector<int64_t> process =
      planned ? std::vector<int64_t>() : gather_numbers(world, peak_resident_bytes());
  settle_plan(job, shape, process);
  if (job.options.batch && !job.options.cache_tokens && !planned)
    fit_cache(session, job, shape, process);
  return job;
}

void check_memory(MpiSession& session, const Job& job) {
  Communicator& world = session.world();
  const std::vector<std::string> hosts = all_gather_strings(world, session.host());
  const std::vector<int64_t> available = gather_numbers(world, available_bytes());
  session.on_root([&] {
    for (const auto& [host, bytes] : node_bytes(job.plan, hosts, available))
      if (bytes.first > bytes.second)
        fail(ExitCode::kResources,
             "host {} has {:.2f} GB of memory left, its ranks need {:.2f} GB (weights of the model "
             "{:.2f} GB); use more hosts, a smaller dtype or a smaller --context (--dry-run prints "
             "the plan)",
             host,
             gigabytes(bytes.second),
             gigabytes(bytes.first),
             gigabytes(job.plan.model_bytes));
  });
}

}  // namespace glm
