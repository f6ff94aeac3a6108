// SPDX-License-Identifier: MIT
#include "apps/infer_job.h"

#include <algorithm>

#include "apps/infer_device.h"
#include "apps/infer_grid.h"
#include "apps/infer_text.h"
#include "core/engine/engine.h"
#include "kernels/cuda/cuda_ops.h"

namespace glm {
namespace {

// Rows of a prompt that run together; more rows share each read of an expert, and cost scratch.
constexpr int64_t kChunkRows = 512;
// With --dump-logits every row has logits, which the leader holds twice.
constexpr int64_t kDumpRows = 64;
constexpr int64_t kDefaultContext = 8192;
// Where texts are scored: windows that run at once on a data rank, positions for what stands before
// a window, and the logits that a step may have for each data rank, in bytes and in rows.
constexpr int64_t kScoreSequences = 2;
constexpr int64_t kScorePrefix = 16;
constexpr int64_t kScoreBytes = int64_t{64} << 20;
constexpr int64_t kScoreRows = 256;
// Requests of a batch that run at once on a data rank.
constexpr int64_t kBatchSequences = 8;
// What is advised where a plan does not fit: no context below the first, so many ways at most.
constexpr int64_t kLeastAdvised = 256;
constexpr size_t kMostAdvice = 4;

std::string serialized(const ModelSource& source) {
  return source.index ? "I" + source.index->serialized() : "T";
}

DTypeChoice wanted_dtypes(const InferOptions& options) {
  DTypeChoice dtypes = default_dtypes(options.dtype);
  dtypes.embedding = options.embedding_dtype.value_or(dtypes.embedding);
  dtypes.head = options.head_dtype.value_or(dtypes.head);
  return dtypes;
}

// Rank 0's view of the model on all ranks. Only rank 0 needs the texts of a folder.
ModelSource shared_source(MpiSession& session, const InferOptions& options) {
  ModelSource source;
  std::optional<SyntheticModel> synthetic;
  if (options.synthetic) synthetic = {options.synthetic_seed, wanted_dtypes(options)};
  session.on_root([&] {
    source = synthetic ? open_synthetic_source(options.model, *synthetic)
                       : open_model_source(options.model);
    if (!source.index && !synthetic && !options.dry_run)
      fail(ExitCode::kUsage,
           "{} is a folder; convert it first: glm_convert {} MODEL.h5",
           escaped(options.model),
           escaped(options.model));
  });
  std::string bytes = session.world().rank() == 0 ? serialized(source) : std::string();
  broadcast_string(session.world(), bytes, 0);
  broadcast_string(session.world(), source.texts.config, 0);
  broadcast_string(session.world(), source.texts.generation_config, 0);
  if (session.world().rank() == 0) return source;
  source.path = options.model;
  source.synthetic = synthetic;
  if (bytes[0] == 'I') {
    source.index = ModelIndex::deserialized(std::string_view(bytes).substr(1));
    source.texts = source.index->texts;
  }
  return source;
}

// Ranks of another host may have another file under the same path.
void compare_files(MpiSession& session, const ModelIndex& index) {
  std::string mine = "=";
  try {
    mine += manifest_digest(index, RawFile(index.path, ExitCode::kModelFile));
  } catch (const Error& error) {
    mine = error.what();
  }
  const std::vector<std::string> digests = all_gather_strings(session.world(), mine);
  const std::vector<std::string> hosts = all_gather_strings(session.world(), session.host());
  session.on_root([&] {
    for (size_t r = 0; r < digests.size(); ++r) {
      const std::string where = fmt::format("rank {} on host {}", r, hosts[r]);
      if (digests[r][0] != '=')
        fail(ExitCode::kModelFile, "{} cannot read the model: {}", where, digests[r]);
      if (digests[r].substr(1) != index.digest)
        fail(ExitCode::kModelFile,
             "{}: {} finds another file there than rank 0 on host {}; copy the model again, or "
             "name a path that all hosts share",
             escaped(index.path),
             where,
             hosts[0]);
    }
  });
}

void settle_types(Job& job) {
  if (job.source.index) {
    job.stored = stored_types(*job.source.index);
    job.with_mtp = job.stored.contains("mtp.projection");
    return;
  }
  job.with_mtp = job.config.announces_mtp;
  const DTypeChoice dtypes = wanted_dtypes(job.options);
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

bool drafting(const Job& job) { return job.drafts != DraftMode::kOff; }

// Of a request that says nothing else.
bool answers_greedily(const Job& job) {
  return greedy_by_default(job.options,
                           parse_generation_config(job.source.texts.generation_config,
                                                   job.source.name_of("generation_config.json"),
                                                   job.config));
}

// What --mtp comes to in this job.
void settle_drafts(Job& job) {
  const InferOptions& o = job.options;
  const bool measures = o.benchmark || o.score_window;
  job.drafts = o.mtp.value_or(measures ? DraftMode::kOff : DraftMode::kAuto);
  if (!drafting(job)) return;
  if (job.drafts == DraftMode::kOn && !job.with_mtp)
    fail(ExitCode::kUsage,
         "--mtp on: {} has no MTP layer (glm_inspect shows what it has)",
         escaped(o.model));
  if (!job.with_mtp)
    job.no_drafts = "the model has no MTP layer";
  else if (o.dump_logits)
    job.no_drafts = "all logits are wanted";
  else if (job.drafts == DraftMode::kAuto && !measures && !answers_greedily(job))
    job.no_drafts = "answers are sampled, --mtp on drafts them too";
  if (!job.no_drafts.empty()) job.drafts = DraftMode::kOff;
}

void settle_limits(Job& job, int data) {
  const auto& window = job.options.score_window;
  const int64_t usual = window ? *window + kScorePrefix : kDefaultContext;
  const int64_t context = job.options.context.value_or(std::min(job.config.max_positions, usual));
  if (context > job.config.max_positions)
    fail(ExitCode::kUsage,
         "--context {} is beyond the model's {} positions",
         context,
         job.config.max_positions);
  StepLimits& limits = job.model.limits;
  limits.max_context = context;
  limits.max_sequences = job.options.batch ? job.options.max_sequences.value_or(kBatchSequences)
                         : window          ? kScoreSequences
                                           : job.options.sequences;
  const int64_t chunk = job.options.dump_logits ? kDumpRows
                        : window                ? kChunkRows + kScorePrefix
                                                : kChunkRows;
  const int64_t rows = drafting(job) ? 2 : 1;  // of a sequence that decodes
  limits.max_rows = std::max(std::min(context, chunk), rows * limits.max_sequences);
  limits.max_logits =
      job.options.dump_logits ? limits.max_rows
      : window ? data * std::clamp<int64_t>(kScoreBytes / (4 * job.config.vocab), 16, kScoreRows)
               : data * rows * limits.max_sequences;
  job.model.kv_blocks = limits.max_sequences * limits.max_blocks();
  if (job.options.cache_tokens)
    job.model.kv_blocks = (*job.options.cache_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  const bool plain = job.stored.at("layers.0.attention.qkv").dtype == DType::kF32;
  job.model.kv_dtype = job.options.kv_dtype.value_or(plain ? KvDType::kF32 : KvDType::kF16);
  job.model.exchange = job.options.exchange;
}

// Everything that a division puts on each rank.
MemoryPlan whole_plan(const Job& job, const Division& division, const JobRanks& ranks) {
  PlanRequest request;
  request.dtypes = dtypes_of(job);
  request.kv_dtype = job.model.kv_dtype;
  request.kv_blocks = job.model.kv_blocks;
  request.numerics = job.placement.numerics;
  request.with_mtp = job.with_mtp;
  request.stored = job.stored;
  MemoryPlan plan = plan_division(job.config, division, request);
  plan.mtp_believed = job.with_mtp && !job.source.index && !job.source.synthetic;
  const OpsLimits limits = job_ops_limits(job, division.shape);
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    RankPlan& rank = plan.ranks[r];
    rank.buffer_bytes = model_scratch_bytes(
        job.config, division.placement(static_cast<int>(r), request.numerics), job.model);
    if (r < ranks.process_bytes.size()) rank.process_bytes = ranks.process_bytes[r];
    if (ranks.on_gpu(r)) {  // what it takes of its host is small beside that
      rank.buffer_bytes += cuda_ops_scratch_bytes(limits);
      if (job.options.nccl != NcclUse::kOff)
        rank.buffer_bytes += DeviceGroups::buffer_bytes({}, ranks.count);
      continue;
    }
    if (job.source.index)  // readers are gone when the model takes its memory
      rank.buffer_bytes = std::max(Weights::readers(job.threads) * job.source.index->block_bytes,
                                   rank.kv_bytes + rank.buffer_bytes) -
                          rank.kv_bytes;
    rank.buffer_bytes += ops_scratch_bytes(job.options.ops, job.threads, limits);
    if (r == 0)
      rank.buffer_bytes += Engine::buffer_bytes(job.model.limits, job.config.vocab, drafting(job));
  }
  return plan;
}

void settle_plan(Job& job, const GridShape& shape, const JobRanks& ranks) {
  FittedPlan fitted = fit_plan(
      job.config,
      dtypes_of(job),
      shape,
      job.capacities,
      [&](const Division& division) { return whole_plan(job, division, ranks); },
      drafting(job));
  job.division = std::move(fitted.division);
  job.plan = std::move(fitted.plan);
}

// `part` of 10: of what the memories have left.
bool plan_fits(const Job& job, const JobRanks& ranks, int64_t part) {
  if (!job.options.capacity.empty() && rank_over_capacity(job.plan, job.capacities) >= 0)
    return false;
  const auto needs = memory_needs(job.plan, ranks);
  return std::none_of(needs.begin(), needs.end(), [&](const auto& need) {
    return need.second.needed > need.second.available / 10 * part;
  });
}

// As asked for, or the fastest that fits.
GridShape settle_grid(Job& job, const JobRanks& ranks) {
  const GridRequest& request = job.options.grid;
  const bool given = request.data || request.pipeline || request.tensor || request.expert;
  if (given || ranks.count == 1) return complete_grid(request, ranks.count, job.config.is_moe());
  const auto fits = [&](const GridShape& shape) {
    settle_limits(job, shape.data);
    // A batch runs with the pages of one sequence if it must.
    if (job.options.batch && !job.options.cache_tokens)
      job.model.kv_blocks = job.model.limits.max_blocks();
    settle_plan(job, shape, ranks);
    return plan_fits(job, ranks, 10);
  };
  GridChoice choice = choose_job_grid(job, ranks, fits);
  // The estimates err by more than grids differ (docs/notes/grid_choice.md): as long as the default
  // fits they only advise.
  const GridShape usual = complete_grid({}, ranks.count, job.config.is_moe());
  if (fits(usual)) {
    choice.reason =
        fmt::format("default: {} (fastest by estimate: {})", usual.text(), choice.shape.text());
    choice.shape = usual;
  }
  job.grid_reason = choice.reason;
  job.grid_ranking = ranking_text(choice);
  return choice.shape;
}

// A batch can do with fewer pages than all of its sequences at their longest would fill: takes
// pages away, down to those of one sequence, until every host has a tenth of its memory left.
void fit_cache(Job& job, const GridShape& shape, const JobRanks& ranks) {
  const int64_t least = job.model.limits.max_blocks();
  while (!plan_fits(job, ranks, 9) && job.model.kv_blocks > least) {
    job.model.kv_blocks = std::max(least, job.model.kv_blocks * 3 / 4);
    settle_plan(job, shape, ranks);
  }
}

// Grid, limits and plan for what is loaded.
void settle_layout(Job& job, const JobRanks& ranks) {
  settle_limits(job, 1);
  const GridShape shape = settle_grid(job, ranks);
  if (job.options.exchange == ExchangeKind::kReduce && shape.expert > shape.tensor)
    fail(ExitCode::kUsage,
         "--expert-exchange reduce needs ranks that share their tokens: --expert {} must divide "
         "--tensor {}",
         shape.expert,
         shape.tensor);
  settle_limits(job, shape.data);
  settle_plan(job, shape, ranks);
  if (job.options.batch && !job.options.cache_tokens) fit_cache(job, shape, ranks);
}

// Contexts and grids of these ranks that would fit where the job's do not. Leaves the job as it
// was.
std::string what_would_fit(Job& job, const JobRanks& ranks) {
  const GridShape shape = job.plan.shape;
  const std::optional<int64_t> asked = job.options.context;
  const auto fits = [&](const GridShape& other) {
    settle_limits(job, other.data);
    settle_plan(job, other, ranks);
    return plan_fits(job, ranks, 10);
  };
  std::vector<std::string> advice;
  for (int64_t context = job.model.limits.max_context / 2; context >= kLeastAdvised; context /= 2) {
    job.options.context = context;
    if (!fits(shape)) continue;
    advice.push_back(fmt::format("--context {}", context));
    break;
  }
  job.options.context = asked;
  const bool shares = job.options.exchange == ExchangeKind::kReduce;
  for (const GridShape& other : legal_grid_shapes(ranks.count, job.config.is_moe(), shares)) {
    if (advice.size() == kMostAdvice) break;
    if (!(other == shape) && fits(other)) advice.push_back(fmt::format("grid {}", other.text()));
  }
  fits(shape);
  return fmt::format("{}", fmt::join(advice, "; "));
}

void settle_for(Job& job, const JobRanks& ranks) {
  settle_model(job, ranks);
  settle_layout(job, ranks);
  if (plan_fits(job, ranks, 10)) return;
  // Drafts are worth less than a run.
  if (job.drafts == DraftMode::kAuto) {
    job.drafts = DraftMode::kOff;
    job.no_drafts = "memory is short";
    settle_layout(job, ranks);
    if (plan_fits(job, ranks, 10)) return;
  }
  job.advice = what_would_fit(job, ranks);
}

}  // namespace

void settle_model(Job& job, const JobRanks& ranks) {
  job.config = parse_config(job.source.texts.config, job.source.name_of("config.json"));
  job.capacities = job_capacities(job.options, ranks);
  settle_types(job);
  settle_drafts(job);
}

bool settle_on(Job& job, const JobRanks& ranks, const GridShape& shape) {
  settle_limits(job, shape.data);
  settle_plan(job, shape, ranks);
  return plan_fits(job, ranks, 10);
}

OpsLimits job_ops_limits(const Job& job, const GridShape& shape) {
  OpsLimits limits = ops_limits(job.config, shape, job.model.limits);
  limits.fast = job.placement.numerics != Numerics::kReproducible;
  // Embeddings and heads meet few rows.
  for (const auto& [name, stored] : job.stored)
    if (name != "embedding" && name != "head")
      limits.half_weights |= stored.dtype == DType::kF16 || stored.dtype == DType::kBF16;
  return limits;
}

Job begin_job(const MpiSession& session, const InferOptions& options) {
  Job job;
  job.options = options;
  const CpuShare share = cpu_share(session.node_rank(), session.node_size());
  job.cores = share.cores;
  job.threads = options.threads.value_or(static_cast<int>(std::max<size_t>(1, share.cores.size())));
  job.widened = share.widened;
  if (options.reproducible) job.placement.numerics = Numerics::kReproducible;
  return job;
}

void share_model(MpiSession& session, Job& job) {
  job.source = shared_source(session, job.options);
  if (job.source.index && !job.options.dry_run) compare_files(session, *job.source.index);
}

void settle_job(MpiSession& session, Job& job) {
  const InferOptions& options = job.options;
  const bool planned = options.dry_run && options.ranks.has_value();
  const JobRanks ranks = planned ? imagined_ranks(*options.ranks, job.threads)
                                 : measure_ranks(session, *job.device, options.memory_fraction);
  for (size_t r = 0; r < static_cast<size_t>(ranks.count); ++r)
    job.uses_gpus = job.uses_gpus || ranks.on_gpu(r);
  const auto settle = [&] { settle_for(job, ranks); };
  const bool root = session.world().rank() == 0;
  session.on_root(settle);
  if (!root) settle();
  job.placement =
      job.division.placement(planned ? 0 : session.world().rank(), job.placement.numerics);
}

void settle_alone(Job& job) {
  settle_for(job, imagined_ranks(1, job.threads));
  job.placement = job.division.placement(0, job.placement.numerics);
}

Job prepare_job(MpiSession& session, const InferOptions& options) {
  Job job = begin_job(session, options);
  share_model(session, job);
  const bool planned = options.dry_run && options.ranks.has_value();
  job.device = planned ? make_cpu_device() : open_device(session, options);
  settle_job(session, job);
  return job;
}

}  // namespace glm
