// glm_infer: one MPI job that answers a prompt. Parses, builds, runs, reports; the work is in
// core/. SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "apps/infer_job.h"
#include "apps/infer_report.h"
#include "apps/infer_text.h"
#include "core/base/rng.h"
#include "core/engine/engine.h"
#include "core/model/token_bytes.h"
#include "io/logits_file.h"
#include "kernels/roof.h"
#include "parallel/mpi_session.h"

namespace glm {
namespace {

// A rank with everything it computes with.
struct Worker {
  Worker(MpiSession& session, const Job& job, StepContext& where)
      : grid(session.world(), job.placement.shape),
        device(make_cpu_device()),
        ops(make_ops(job.options.ops,
                     *device,
                     job.threads,
                     ops_limits(job.config, job.placement.shape, job.model.limits))),
        weights(job.config, *job.source.index, job.placement, *device, job.options.verify),
        model(make_model({job.config, job.placement, grid, *device, *ops, weights, where},
                         job.model)),
        engine(
            grid, *model, *device, job.model.limits, job.model.kv_blocks, job.config.vocab, where) {
  }

  ProcessGrid grid;
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
  Weights weights;
  std::unique_ptr<Model> model;
  Engine engine;
};

void write_out(const std::string& text) {
  const bool good =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!good) fail(ExitCode::kRuntime, "the answer could not be written to stdout");
}

double comm_seconds(Worker& worker) {
  return worker.grid.world().counters().seconds + worker.grid.tensor().counters().seconds +
         worker.grid.exchange().counters().seconds;
}

RankReport rank_report(
    MpiSession& session, const Job& job, Worker& worker, double run_seconds, double comm_before) {
  RankReport report;
  report.host = session.host();
  report.weight_bytes = worker.weights.bytes();
  report.bytes_read = worker.weights.bytes_read();
  report.load_seconds = worker.weights.load_seconds();
  report.plan_bytes = job.plan.ranks[static_cast<size_t>(session.world().rank())].total_bytes();
  report.peak_rss_bytes = peak_resident_bytes();
  report.run_seconds = run_seconds;
  report.comm_seconds = comm_seconds(worker) - comm_before;
  report.sent_bytes = worker.grid.world().counters().sent_bytes +
                      worker.grid.tensor().counters().sent_bytes +
                      worker.grid.exchange().counters().sent_bytes;
  report.exchange = worker.model->exchange_counters();
  report.threads = job.threads;
  return report;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The request of the command line, on rank 0.
Request make_request(const Job& job, const TextSide& text) {
  Request request;
  request.prompt = text.prompt_ids(job.options);
  request.sampling = text.sampling(job.options);
  request.stop_ids = text.stop_ids();
  request.all_logits = job.options.dump_logits.has_value();
  const int64_t room = job.model.limits.max_context - static_cast<int64_t>(request.prompt.size());
  if (room < 1 || job.options.max_tokens.value_or(1) > room)
    fail(ExitCode::kUsage,
         "a prompt of {} tokens and --max-tokens {} exceed the context of {}; shorten the prompt, "
         "lower --max-tokens or raise --context (at most {})",
         request.prompt.size(),
         job.options.max_tokens.value_or(1),
         job.model.limits.max_context,
         job.config.max_positions);
  request.max_tokens = job.options.max_tokens.value_or(std::min<int64_t>(room, 1024));
  return request;
}

const char* finish_name(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

int answer(MpiSession& session, const Job& job, StepContext& where) {
  const bool root = session.world().rank() == 0;
  std::optional<TextSide> text;
  std::optional<Request> request;
  std::unique_ptr<LogitsWriter> logits;
  session.on_root([&] {
    text.emplace(job.source.texts, job.config, job.source.path);
    request = make_request(job, *text);
    if (job.options.dump_logits)
      logits = std::make_unique<LogitsWriter>(*job.options.dump_logits, job.config.vocab);
  });
  check_memory(session, job);
  where.phase = "load";
  Worker worker(session, job, where);
  if (root && request) worker.engine.submit(*request);

  AnswerStream stream(root ? text->tokenizer() : nullptr, job.options.stop);
  const bool print_text = root && text->tokenizer() != nullptr && !job.options.json;
  EngineListener listener;
  listener.on_token = [&](int32_t, int32_t token) {
    const std::string piece = stream.push(token);
    if (print_text) write_out(piece);
    return !stream.stopped();
  };
  listener.on_logits = [&](int32_t id, int64_t position, std::span<const float> row) {
    logits->append(worker.engine.sequence(id).tokens[static_cast<size_t>(position)], row);
  };
  const double comm_before = comm_seconds(worker);
  const double start = now();
  worker.engine.run(listener);
  const std::vector<RankReport> reports = gather_reports(
      session.world(), rank_report(session, job, worker, now() - start, comm_before));
  if (!root) return 0;

  const std::string rest = stream.finish();
  if (logits) logits->finish();
  const int64_t per_token = bytes_per_token(job.config, job.stored);
  std::fputs(summary_text(job, reports, worker.engine.stats(), per_token).c_str(), stderr);
  if (print_text) {
    write_out(rest + "\n");
  } else if (!job.options.json) {
    write_out(fmt::format("{}\n", fmt::join(stream.tokens(), ",")));
  } else {
    const EngineStats& stats = worker.engine.stats();
    const Json out = {{"text", stream.text()},
                      {"tokens", stream.tokens()},
                      {"prompt_tokens", request->prompt},
                      {"finish_reason", finish_name(worker.engine.sequence(0).finish)},
                      {"usage",
                       {{"prompt_tokens", request->prompt.size()},
                        {"completion_tokens", stream.tokens().size()}}},
                      {"grid", grid_json(job)},
                      {"model_bytes", job.plan.model_bytes},
                      {"ranks", ranks_json(job, reports)},
                      {"timing",
                       {{"first_token_seconds", stats.first_token_seconds},
                        {"prefill_seconds", stats.prefill_seconds},
                        {"decode_seconds", stats.decode_seconds},
                        {"decode_tokens", stats.decode_tokens}}},
                      {"bytes_per_token", per_token}};
    write_out(out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  return 0;
}

// Random ids, the same for every run of one length.
std::vector<int32_t> benchmark_prompt(const Job& job) {
  std::vector<int32_t> ids;
  const uint64_t key = stream_key(job.options.seed, "benchmark");
  for (int64_t i = 0; i < job.options.prompt_tokens; ++i)
    ids.push_back(static_cast<int32_t>(uniform_double(key, static_cast<uint64_t>(i)) *
                                       static_cast<double>(job.config.vocab)));
  return ids;
}

int benchmark(MpiSession& session, Job job, StepContext& where) {
  const bool root = session.world().rank() == 0;
  if (!job.options.max_tokens) job.options.max_tokens = 64;
  session.on_root([&] {
    const int64_t needed = job.options.prompt_tokens + *job.options.max_tokens;
    if (needed > job.model.limits.max_context)
      fail(ExitCode::kUsage,
           "--prompt-tokens {} and --max-tokens {} exceed the context of {}",
           job.options.prompt_tokens,
           *job.options.max_tokens,
           job.model.limits.max_context);
  });
  check_memory(session, job);
  BenchmarkResult result;
  result.bytes_per_token = bytes_per_token(job.config, job.stored);
  session.world().barrier();
  const double mine = measure_read_bandwidth(job.threads, int64_t{1} << 30, 5);
  for (const std::string& other : all_gather_strings(session.world(), fmt::format("{}", mine)))
    result.read_bandwidth += std::stod(other);

  where.phase = "load";
  Worker worker(session, job, where);
  Request request;
  request.prompt = benchmark_prompt(job);
  request.sampling.temperature = 0;
  request.max_tokens = *job.options.max_tokens;
  const double comm_before = comm_seconds(worker);
  const double start = now();
  for (int i = -1; i < job.options.repeat; ++i) {  // the first run warms up
    if (root) worker.engine.submit(request);
    worker.engine.clear_stats();
    worker.engine.run({});
    const EngineStats& stats = worker.engine.stats();
    if (!root || i < 0) continue;
    // A one-token prompt has no prefill step of its own.
    if (stats.prefill_seconds > 0)
      result.prefill_tokens_per_second.push_back(static_cast<double>(stats.prefill_tokens) /
                                                 stats.prefill_seconds);
    if (stats.decode_seconds > 0)
      result.decode_tokens_per_second.push_back(static_cast<double>(stats.decode_tokens) /
                                                stats.decode_seconds);
  }
  const std::vector<RankReport> reports = gather_reports(
      session.world(), rank_report(session, job, worker, now() - start, comm_before));
  if (!root) return 0;
  std::fputs(summary_text(job, reports, worker.engine.stats(), result.bytes_per_token).c_str(),
             stderr);
  if (!job.options.json) {
    write_out(benchmark_text(job.options, result));
    return 0;
  }
  const Json out = {{"benchmark", benchmark_json(job.options, result)},
                    {"grid", grid_json(job)},
                    {"model_bytes", job.plan.model_bytes},
                    {"ops", worker.ops->name()},
                    {"ranks", ranks_json(job, reports)}};
  write_out(out.dump() + "\n");
  return 0;
}

int dry_run(MpiSession& session, const Job& job) {
  if (session.world().rank() != 0) return 0;
  write_out(job.options.json ? plan_json(job).dump() + "\n" : plan_text(job.config, job.plan));
  if (job.options.json) return 0;
  int64_t largest = 0;
  for (const RankPlan& rank : job.plan.ranks) largest = std::max(largest, rank.total_bytes());
  const int64_t here = available_bytes();
  if (largest > here)
    write_out(fmt::format(
        "does not fit: the largest rank needs {:.2f} GB, this host has {:.2f} GB left\n",
        static_cast<double>(largest) * 1e-9,
        static_cast<double>(here) * 1e-9));
  return 0;
}

int run(MpiSession& session, const ParsedCommand& command) {
  session.on_root([&] {
    if (command.kind == ParsedCommand::Kind::kError) throw Error(ExitCode::kUsage, command.text);
  });
  StepContext where;
  CommOptions options;
  options.timeout_seconds = command.options.timeout;
  options.context = &where;
  session.configure(options);
  const Job job = prepare_job(session, command.options);
  if (job.options.dry_run) return dry_run(session, job);
  bind_process(job.cores);
  return job.options.benchmark ? benchmark(session, job, where) : answer(session, job, where);
}

// Before MPI starts only the launcher's environment says which rank this is.
bool first_of_launch() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(name)) return std::string_view(rank) == "0";
  return true;
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  const glm::ParsedCommand command = glm::parse_infer_command(argc, argv);
  if (command.kind == glm::ParsedCommand::Kind::kText) {
    if (glm::first_of_launch()) std::fputs(command.text.c_str(), stdout);
    return 0;
  }
  return glm::run_mpi_program(argc, argv, "glm_infer", [&](glm::MpiSession& session) {
    return glm::run(session, command);
  });
}
