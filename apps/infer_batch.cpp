// --batch: the requests of a file, as many at once as the limits allow; answers are written as they
// end. SPDX-License-Identifier: MIT
#include <cstdio>
#include <optional>

#include "apps/batch_leader.h"
#include "apps/infer_run.h"

namespace glm {
namespace {

// Seconds from one save of the state to the next.
constexpr double kSavePause = 600;

Json totals_json(const BatchTotals& totals) {
  return {{"lines", totals.n_lines},
          {"skipped", totals.n_skipped},
          {"answered", totals.n_done},
          {"prompt_tokens", totals.prompt_tokens},
          {"completion_tokens", totals.completion_tokens},
          {"seconds", totals.seconds},
          {"completion_tokens_per_second", rate(totals.completion_tokens, totals.seconds)},
          {"preemptions", totals.preempted},
          {"stopped", totals.stopped}};
}

std::string totals_text(const BatchTotals& totals) {
  return fmt::format(
      "batch: {} lines, {} answered before, {} answered in {:.2f} s; {} prompt tokens, {} answer "
      "tokens, {:.1f} of them per second; {} preemptions\n",
      totals.n_lines,
      totals.n_skipped,
      totals.n_done,
      totals.seconds,
      totals.prompt_tokens,
      totals.completion_tokens,
      rate(totals.completion_tokens, totals.seconds),
      totals.preempted);
}

void report(const Job& job,
            const Worker& worker,
            const BatchTotals& totals,
            const std::vector<RankReport>& reports) {
  if (job.options.json) {
    const Json out = {{"batch", totals_json(totals)},
                      {"grid", grid_json(job)},
                      {"model_bytes", job.plan.model_bytes},
                      {"ops", worker.ops->name()},
                      {"drafts", drafts_json(job, worker.engine.stats())},
                      {"cost", cost_json(job, reports, worker.engine.stats())},
                      {"ranks", ranks_json(job, reports)}};
    write_out(out.dump() + "\n");
  }
  if (totals.stopped) return;
  const std::string summary =
      summary_text(job, reports, worker.engine.stats(), bytes_per_token(job.config, job.stored));
  std::fputs((summary + totals_text(totals)).c_str(), stderr);
}

// What a job with --state does between steps.
Pauses pauses_of(const MpiSession& session,
                 const Job& job,
                 std::optional<BatchLeader>& leader,
                 const Engine& engine) {
  Pauses pauses;
  if (!job.options.state) return pauses;
  pauses.told = [&session] { return session.stop_signal(); };
  pauses.save = [&leader, &engine] { leader->save_for_later(engine); };
  pauses.save_seconds = job.options.state_interval.value_or(kSavePause);
  return pauses;
}

// On all ranks what the leader knows.
int shared_signal(MpiSession& session, int signal) {
  int32_t value = signal;
  session.world().broadcast(host_tensor(&value, DType::kI32, {1}), 0);
  return value;
}

}  // namespace

int run_batch(MpiSession& session, const Job& job, StepContext& where) {
  std::optional<BatchLeader> leader;
  session.on_root([&] { leader.emplace(job); });
  std::string open = leader ? std::to_string(leader->n_open()) : std::string();
  broadcast_string(session.world(), open, 0);
  if (open == "0") {
    if (!leader) return 0;
    std::fputs(totals_text(leader->totals()).c_str(), stderr);
    if (job.options.json) write_out(Json{{"batch", totals_json(leader->totals())}}.dump() + "\n");
    return 0;
  }
  check_memory(session, job);
  where.phase = "load";
  std::function<int()> told;
  if (job.options.state) told = [&session] { return session.stop_signal(); };
  Worker worker(session.world(), job, where, told);
  if (leader) leader->submit(worker.engine);
  RunClock clock(session, job, worker);
  const Pauses pauses = pauses_of(session, job, leader, worker.engine);
  const int signal = shared_signal(session, worker.engine.run({}, pauses));
  session.on_root([&] { leader->finish(worker.engine, signal); });
  const std::vector<RankReport> reports = clock.reports();
  const RecordedRun record = clock.recorded();
  const int code = signal == 0 ? 0 : static_cast<int>(ExitCode::kDrained);
  if (!leader) return code;
  report(job, worker, leader->totals(), reports);
  write_record(
      job, record, {"batch", reports, worker.engine.stats(), totals_json(leader->totals())});
  if (signal != 0) std::fputs(leader->farewell(signal).c_str(), stderr);
  return code;
}

}  // namespace glm
