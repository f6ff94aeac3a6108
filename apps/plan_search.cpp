// SPDX-License-Identifier: MIT
#include "apps/plan_search.h"

#include <algorithm>
#include <filesystem>

#include "apps/infer_prediction.h"
#include "core/model/token_bytes.h"

namespace glm {
namespace {

constexpr int64_t kMostDescription = 1 << 20;  // bytes
constexpr int64_t kUsualContext = 8192;
constexpr int64_t kLeastContext = 256;
constexpr int64_t kMostAdvisedRanks = 512;
// A machine that has as many nodes as it takes needs something between them.
constexpr LinkSpec kAssumedBetween = {30e-6, 0, 0, 10e9};

InferOptions infer_options(const PlanOptions& options, int64_t context) {
  InferOptions out;
  out.model = options.model;
  out.dtype = options.dtype;
  out.embedding_dtype = options.embedding_dtype;
  out.head_dtype = options.head_dtype;
  out.kv_dtype = options.kv_dtype;
  out.exchange = options.exchange;
  out.reproducible = options.reproducible;
  out.context = context;
  out.mtp = DraftMode::kOff;
  out.dry_run = true;
  out.sequences = options.sequences;
  return out;
}

// Model, types and capacities, but no grid yet.
Job plan_job(const InferOptions& options, const JobRanks& ranks, int threads) {
  Job job;
  job.options = options;
  job.threads = threads;
  job.device = make_cpu_device();
  if (options.reproducible) job.placement.numerics = Numerics::kReproducible;
  job.source = open_model_source(options.model);
  job.uses_gpus = ranks.on_gpu(0);
  settle_model(job, ranks);
  return job;
}

std::vector<int> host_numbers(const MachineSpec& spec) {
  std::vector<int> hosts;
  for (int r = 0; r < spec.n_ranks(); ++r) hosts.push_back(r / spec.ranks_per_node);
  return hosts;
}

bool wanted(const GridRequest& request, const GridShape& shape) {
  const auto is = [](const std::optional<int>& axis, int value) { return !axis || *axis == value; };
  return is(request.data, shape.data) && is(request.pipeline, shape.pipeline) &&
         is(request.tensor, shape.tensor) && is(request.expert, shape.expert);
}

// Grids that leave no stage without a layer and no rank without a head, where there are any.
std::vector<GridShape> candidates(const Job& job, const PlanOptions& options, int world) {
  const bool shares = options.exchange == ExchangeKind::kReduce;
  std::vector<GridShape> all;
  std::vector<GridShape> useful;
  for (const GridShape& shape : legal_grid_shapes(world, job.config.is_moe(), shares)) {
    if (!wanted(options.grid, shape)) continue;
    all.push_back(shape);
    if (shape.pipeline <= job.config.n_layers && shape.tensor <= job.config.n_heads)
      useful.push_back(shape);
  }
  return useful.empty() ? all : useful;
}

// Sequences of the fullest data rank decide what its cache must hold.
bool settle_shape(Job& job, const PlanOptions& options, const JobRanks& ranks, GridShape shape) {
  job.options.sequences = (options.sequences + shape.data - 1) / shape.data;
  return settle_on(job, ranks, shape);
}

void find_fullest(PlannedGrid& grid, const Job& job, const JobRanks& ranks) {
  double fullest = -1;
  for (size_t r = 0; r < job.plan.ranks.size(); ++r) {
    const int64_t bytes = job.plan.ranks[r].total_bytes();
    grid.largest_rank_bytes = std::max(grid.largest_rank_bytes, bytes);
    const double room = static_cast<double>(
        job.capacities.empty() ? std::max<int64_t>(1, ranks.available[r]) : job.capacities[r]);
    if (static_cast<double>(bytes) / room <= fullest) continue;
    fullest = static_cast<double>(bytes) / room;
    grid.limiting_rank = static_cast<int>(r);
  }
}

// Estimates for grids of a job, by a machine's figures.
class GridClock {
 public:
  GridClock(PlanResult& result, const std::vector<int>& hosts)
      : result_(result),
        costs_(model_costs(result.job.config, result.job.stored, result.job.model.kv_dtype)),
        machine_(machine_for(result.machine,
                             body_dtype(result.job),
                             hosts,
                             result.ranks.cores,
                             result.job.threads)) {}

  // division: null where only a rough order is wanted.
  GridEstimate estimate(const GridShape& shape, const Division* division) const {
    return estimate_grid(result_.job.config, costs_, shape, machine_, result_.workload, division);
  }

 private:
  const PlanResult& result_;
  ModelCosts costs_;
  Machine machine_;
};

bool faster(const PlannedGrid& a, const PlannedGrid& b) {
  return a.estimate.total_seconds < b.estimate.total_seconds;
}

// The fastest grids that fit, at least as many as are shown; where none does, all that were tried.
void plan_grids(PlanResult& result, const PlanOptions& options, std::vector<GridShape> shapes) {
  settle_shape(result.job, options, result.ranks, shapes.front());
  result.workload.chunk_rows = result.job.model.limits.max_rows;
  const GridClock clock(result, host_numbers(result.machine));
  for (const GridShape& shape : shapes)
    result.grids.push_back({shape, clock.estimate(shape, nullptr)});
  std::stable_sort(result.grids.begin(), result.grids.end(), faster);
  int fitting = 0;
  size_t tried = 0;
  for (; tried < result.grids.size() && fitting < options.show; ++tried) {
    PlannedGrid& grid = result.grids[tried];
    grid.fits = settle_shape(result.job, options, result.ranks, grid.shape);
    find_fullest(grid, result.job, result.ranks);
    grid.estimate = clock.estimate(grid.shape, &result.job.division);
    fitting += grid.fits ? 1 : 0;
  }
  result.grids.resize(tried);
  std::stable_sort(result.grids.begin(), result.grids.end(), [](const auto& a, const auto& b) {
    return a.fits != b.fits ? a.fits : faster(a, b);
  });
}

// Ranks of the same kind on more nodes, or none.
MachineSpec with_nodes(MachineSpec spec, int nodes) {
  spec.nodes = nodes;
  spec.ranks.clear();
  if (!spec.between) spec.between = kAssumedBetween;
  return spec;
}

// Whether the grid does that copies least: a stage for each node, whose ranks split it.
bool any_fits(Job& job, const PlanOptions& options, const MachineSpec& spec) {
  const JobRanks ranks = ranks_of(spec, options.memory_fraction);
  const int tensor = std::min(spec.ranks_per_node, job.config.n_heads);
  if (ranks.count % tensor != 0) return false;
  return settle_shape(
      job, options, ranks, {1, ranks.count / tensor, tensor, job.config.is_moe() ? tensor : 1});
}

// Smaller contexts, smaller dtypes, more nodes.
std::vector<std::string> what_would_fit(PlanResult& result, const PlanOptions& options) {
  std::vector<std::string> advice;
  const int64_t least = std::max(kLeastContext, options.prompt_tokens + options.max_tokens);
  for (int64_t context = result.context / 2; context >= least; context /= 2) {
    result.job.options.context = context;
    if (!any_fits(result.job, options, result.machine)) continue;
    advice.push_back(fmt::format("--context {}", context));
    break;
  }
  result.job.options.context = result.context;
  if (!result.job.source.index) {
    for (const DType dtype : {DType::kQ80, DType::kQ40}) {
      if (dtype == options.dtype || options.dtype == DType::kQ40) continue;
      InferOptions smaller = result.job.options;
      smaller.dtype = dtype;
      Job job = plan_job(smaller, result.ranks, result.job.threads);
      if (!any_fits(job, options, result.machine)) continue;
      advice.push_back(fmt::format("--dtype {}", dtype_name(dtype)));
      break;
    }
  }
  for (int nodes = result.machine.nodes * 2;
       int64_t{nodes} * result.machine.ranks_per_node <= kMostAdvisedRanks;
       nodes *= 2) {
    if (!any_fits(result.job, options, with_nodes(result.machine, nodes))) continue;
    advice.push_back(fmt::format("--nodes {}", nodes));
    break;
  }
  return advice;
}

}  // namespace

MachineSpec open_machine(const PlanOptions& options) {
  MachineSpec spec;
  const auto& bundled = bundled_machines();
  const auto found = std::find_if(bundled.begin(), bundled.end(), [&](const auto& machine) {
    return machine.first == options.machine;
  });
  if (found != bundled.end()) {
    spec = parse_machine(found->second, found->first);
  } else {
    std::error_code error;
    if (!std::filesystem::is_regular_file(options.machine, error)) {
      std::vector<std::string> names;
      for (const auto& [name, text] : bundled) names.push_back(name);
      fail(ExitCode::kUsage,
           "--machine {}: neither a file nor one of {}; glm_plan --measure --machine-out FILE "
           "describes this host",
           escaped(options.machine),
           fmt::join(names, ", "));
    }
    spec = parse_machine(read_file(options.machine, kMostDescription, ExitCode::kModelFile),
                         options.machine);
  }
  if (spec.name.empty()) spec.name = options.machine;
  if ((options.nodes || options.ranks_per_node) && !spec.ranks.empty())
    fail(ExitCode::kUsage,
         "--nodes and --ranks-per-node do not go with machine {}: it lists its ranks one by one",
         escaped(spec.name));
  spec.ranks_per_node = options.ranks_per_node.value_or(spec.ranks_per_node);
  spec.nodes = options.nodes.value_or(spec.nodes);
  if (spec.nodes > 1 && !spec.between)
    fail(ExitCode::kUsage,
         "--nodes {}: machine {} does not say what lies between its nodes (between)",
         spec.nodes,
         escaped(spec.name));
  if (int64_t{spec.nodes} * spec.ranks_per_node > kMostAdvisedRanks * 8)
    fail(ExitCode::kUsage,
         "{} x {} ranks are more than can be planned",
         spec.nodes,
         spec.ranks_per_node);
  return spec;
}

JobRanks ranks_of(const MachineSpec& spec, double memory_fraction) {
  JobRanks ranks;
  ranks.count = spec.n_ranks();
  ranks.cores = spec.gpu ? spec.ranks_per_node : spec.cores_per_node;
  const bool own = spec.gpu || !spec.ranks.empty();  // memory of each rank's own
  for (int r = 0; r < ranks.count; ++r) {
    const std::string host = fmt::format("node {}", r / spec.ranks_per_node);
    ranks.hosts.push_back(host);
    ranks.memories.push_back(spec.gpu ? fmt::format("GPU {} of {}", r % spec.ranks_per_node, host)
                             : own    ? fmt::format("rank {} of {}", r, host)
                                      : host);
    ranks.available.push_back(
        static_cast<int64_t>(static_cast<double>(spec.rank(r).memory_bytes) * memory_fraction));
    ranks.process_bytes.push_back(spec.gpu ? 0 : spec.process_bytes);
  }
  return ranks;
}

int threads_of(const MachineSpec& spec) {
  return spec.gpu ? 1 : std::max(1, spec.cores_per_node / spec.ranks_per_node);
}

PlanResult search_plan(const PlanOptions& options) {
  PlanResult result;
  result.machine = open_machine(options);
  result.ranks = ranks_of(result.machine, options.memory_fraction);
  result.workload = {options.prompt_tokens, options.max_tokens, options.sequences};
  const int64_t needed = options.prompt_tokens + options.max_tokens;
  if (options.context && needed > *options.context)
    fail(ExitCode::kUsage,
         "--prompt-tokens {} and --max-tokens {} exceed --context {}",
         options.prompt_tokens,
         options.max_tokens,
         *options.context);
  result.job =
      plan_job(infer_options(options, kLeastContext), result.ranks, threads_of(result.machine));
  result.context = options.context.value_or(
      std::max(needed, std::min(kUsualContext, result.job.config.max_positions)));
  result.job.options.context = result.context;
  result.bytes_per_token = bytes_per_token(result.job.config, result.job.stored);
  result.operations_per_prompt_token = operations_per_prompt_token(result.job.config);
  const std::vector<GridShape> shapes = candidates(result.job, options, result.ranks.count);
  if (shapes.empty())  // says what is wrong with the axes
    complete_grid(options.grid, result.ranks.count, result.job.config.is_moe());
  if (shapes.empty())
    fail(ExitCode::kUsage, "no grid of {} ranks has the axes given", result.ranks.count);
  plan_grids(result, options, shapes);
  if (!result.fits()) result.advice = what_would_fit(result, options);
  settle_shape(result.job, options, result.ranks, result.grids.front().shape);
  return result;
}

double decode_rate(const PlanResult& result, const GridEstimate& grid) {
  return static_cast<double>(result.workload.sequences) / grid.decode_seconds;
}

double prefill_rate(const PlanResult& result, const GridEstimate& grid) {
  return static_cast<double>(result.workload.prompt_tokens * result.workload.sequences) /
         grid.prefill_seconds;
}

}  // namespace glm
