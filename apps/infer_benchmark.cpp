// --benchmark and --dry-run: prefill and decode speed on random tokens beside the roofs of the same
// hosts; the plan without a run.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "apps/infer_device.h"
#include "apps/infer_prediction.h"
#include "apps/infer_run.h"
#include "core/base/rng.h"
#include "core/model/token_bytes.h"
#include "kernels/roof.h"

namespace glm {
namespace {

constexpr int64_t kReadBytesPerThread = int64_t{1} << 30;
constexpr int64_t kLeastReadBytesPerThread = int64_t{8} << 20;
constexpr int kRoofPasses = 5;
// Beyond the second-level cache of any GPU.
constexpr int64_t kCopiedBytes = int64_t{512} << 20;
constexpr int kCopies = 16;

// Random ids, the same for every run of one length. The answer ignores end tokens.
Request benchmark_request(const Job& job, int64_t sequence) {
  Request request;
  const uint64_t key = stream_key(job.options.seed + static_cast<uint64_t>(sequence), "benchmark");
  const auto vocab = static_cast<double>(job.config.vocab);
  for (int64_t i = 0; i < job.options.prompt_tokens; ++i)
    request.prompt.push_back(
        static_cast<int32_t>(uniform_double(key, static_cast<uint64_t>(i)) * vocab));
  request.sampling.temperature = 0;
  request.max_tokens = *job.options.max_tokens;
  return request;
}

// What all ranks did per second in a pass that they began together: as fast as the slowest.
double together(MpiSession& session, const RoofProbe::Pass& mine) {
  double amount = 0;
  double seconds = 0;
  for (const std::string& text :
       all_gather_strings(session.world(), fmt::format("{} {}", mine.amount, mine.seconds))) {
    const size_t space = text.find(' ');
    amount += std::stod(text.substr(0, space));
    seconds = std::max(seconds, std::stod(text.substr(space)));
  }
  return amount / seconds;
}

// The best of five passes of all threads of all ranks. The memory is not part of the plan: it is at
// most half of what is left, at a time when there are no weights.
Roofs measure_host_roofs(MpiSession& session, int threads) {
  session.world().barrier();
  const int64_t share = available_bytes() / 2 / session.node_size() / threads;
  session.world().barrier();  // nobody takes before all have looked
  Roofs roofs;
  roofs.read_bytes_per_thread = std::clamp(share, kLeastReadBytesPerThread, kReadBytesPerThread);
  RoofProbe probe(threads, roofs.read_bytes_per_thread);
  for (int i = 0; i < kRoofPasses; ++i) {
    session.world().barrier();
    roofs.read = std::max(roofs.read, together(session, probe.read()));
    session.world().barrier();
    roofs.int8 = std::max(roofs.int8, together(session, probe.int8()));
  }
  return roofs;
}

// The sum of the GPUs' best copies, on a device that goes away again. Ranks on the CPU add nothing.
Roofs measure_gpu_roofs(MpiSession& session, const InferOptions& options) {
  const std::unique_ptr<Device> device = open_device(session, options);
  Roofs roofs;
  roofs.of_gpus = true;
  double best = 0;
  if (!device->is_host()) {
    const int64_t bytes = std::min(kCopiedBytes, device->memory().free / 4);
    const Tensor from = device->allocate(DType::kU8, {bytes});
    const Tensor to = device->allocate(DType::kU8, {bytes});
    roofs.read_bytes_per_thread = bytes;
    for (int i = 0; i < kRoofPasses; ++i) {
      device->wait();
      const auto start = std::chrono::steady_clock::now();
      for (int j = 0; j < kCopies; ++j) device->copy(to, from);
      device->wait();
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      best = std::max(best, 2.0 * kCopies * static_cast<double>(bytes) / seconds.count());
    }
  }
  for (const std::string& text : all_gather_strings(session.world(), fmt::format("{}", best)))
    roofs.read += std::stod(text);
  return roofs;
}

Roofs measure_roofs(MpiSession& session, const Job& job) {
  if (!job.options.roofs) return {};
  return job.uses_gpus ? measure_gpu_roofs(session, job.options)
                       : measure_host_roofs(session, job.threads);
}

// What the runs leave behind when the weights are gone.
struct Measured {
  BenchmarkResult result;
  EngineStats stats;  // of the last run
  std::string ops;
  std::vector<RankReport> reports;
  RecordedRun record;
};

Measured run_repeats(MpiSession& session, const Job& job, StepContext& where) {
  where.phase = "load";
  Worker worker(session, job, where);
  const bool root = session.world().rank() == 0;
  Measured measured;
  BenchmarkResult& result = measured.result;
  RunClock clock(session, job, worker);
  for (int i = -1; i < job.options.repeat; ++i) {  // the first run warms up
    for (int64_t s = 0; root && s < job.options.sequences; ++s)
      worker.engine.submit(benchmark_request(job, s));
    worker.engine.clear_stats();
    if (i >= 0) clock.begin_run();
    worker.engine.run({});
    const EngineStats& stats = worker.engine.stats();
    if (!root || i < 0) continue;
    if (stats.prefill_seconds > 0)
      result.prefill_tokens_per_second.push_back(static_cast<double>(stats.prefill_tokens) /
                                                 stats.prefill_seconds);
    if (stats.decode_seconds > 0)
      result.decode_tokens_per_second.push_back(static_cast<double>(stats.decode_tokens) /
                                                stats.decode_seconds);
  }
  measured.stats = worker.engine.stats();
  measured.ops = worker.ops->name();
  measured.reports = clock.reports();
  measured.record = clock.recorded();
  return measured;
}

}  // namespace

int run_benchmark(MpiSession& session, const Job& job, StepContext& where) {
  session.on_root([&] {
    const int64_t needed = job.options.prompt_tokens + *job.options.max_tokens;
    if (needed > job.model.limits.max_context)
      fail(ExitCode::kUsage,
           "--prompt-tokens {} and --max-tokens {} exceed the context of {}; raise --context (at "
           "most {})",
           job.options.prompt_tokens,
           *job.options.max_tokens,
           job.model.limits.max_context,
           job.config.max_positions);
  });
  check_memory(session, job);
  where.phase = "roofs";
  const Roofs before = measure_roofs(session, job);
  forget_peak_resident();
  Measured measured = run_repeats(session, job, where);
  where.phase = "roofs";
  BenchmarkResult& result = measured.result;
  result.before = before;
  result.after = measure_roofs(session, job);
  result.bytes_per_token = bytes_per_token(job.config, job.stored);
  result.operations_per_prompt_token = operations_per_prompt_token(job.config);
  result.rows_share_weights = job.options.sequences > 1 || measured.stats.drafts > 0;
  if (session.world().rank() != 0) return 0;
  const Prediction prediction =
      predict_run(job,
                  measured.reports,
                  measured.stats,
                  {job.options.prompt_tokens, *job.options.max_tokens, job.options.sequences});
  const MeasuredRates rates = {median(result.prefill_tokens_per_second),
                               median(result.decode_tokens_per_second)};
  if (job.options.json) {
    const Json out = {{"benchmark", benchmark_json(job.options, result)},
                      {"model", model_json(job)},
                      {"grid", grid_json(job)},
                      {"model_bytes", job.plan.model_bytes},
                      {"ops", measured.ops},
                      {"drafts", drafts_json(job, measured.stats)},
                      {"cost", cost_json(job, measured.reports, measured.stats)},
                      {"prediction", prediction_json(prediction, measured.reports, rates)},
                      {"ranks", ranks_json(job, measured.reports)}};
    write_out(out.dump() + "\n");
  } else {
    write_out(benchmark_text(job.options, result));
  }
  const std::string summary =
      summary_text(job, measured.reports, measured.stats, result.bytes_per_token) +
      prediction_text(prediction, measured.reports, rates);
  std::fputs(summary.c_str(), stderr);
  write_record(
      job,
      measured.record,
      {"benchmark", measured.reports, measured.stats, benchmark_json(job.options, result)});
  return 0;
}

int run_dry(MpiSession& session, const Job& job) {
  session.on_root([&] {
    if (job.options.json) {
      write_out(plan_json(job).dump() + "\n");
    } else {
      if (job.source.synthetic)
        write_out(fmt::format("model: synthetic, seed {}\n", job.source.synthetic->seed));
      write_out(plan_text(job.config, job.plan));
      if (!job.grid_reason.empty())
        write_out(fmt::format("grid {}\n{}", job.grid_reason, job.grid_ranking));
    }
    check_capacity(job);
    if (job.options.json || !job.options.capacity.empty()) return;
    int64_t largest = 0;
    for (const RankPlan& rank : job.plan.ranks) largest = std::max(largest, rank.total_bytes());
    const int64_t here = available_bytes();
    if (largest > here)
      write_out(fmt::format(
          "does not fit this host: the largest rank needs {:.2f} GB, {:.2f} GB are left\n",
          static_cast<double>(largest) * 1e-9,
          static_cast<double>(here) * 1e-9));
  });
  return 0;
}

}  // namespace glm
