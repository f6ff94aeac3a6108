// SPDX-License-Identifier: MIT
#include <cstdio>
#include <optional>
#include <utility>

#include "apps/infer_run.h"

namespace glm {
namespace {

Weights make_weights(const Job& job, Device& device, Ops& ops, const LoadWork& work) {
  if (job.source.synthetic)
    return Weights(job.config, *job.source.synthetic, job.placement, device, ops, work);
  return Weights(job.config, *job.source.index, job.placement, device, job.options.verify, work);
}

// The ranks need not be told at the same time: who is gives up loading, then all compare.
Weights load_weights(Communicator& world,
                     const Job& job,
                     Device& device,
                     Ops& ops,
                     const std::function<int()>& told) {
  LoadWork work{job.threads};
  if (!told) return make_weights(job, device, ops, work);
  work.between = [&told] {
    if (told() != 0) fail(ExitCode::kDrained, "told to stop");
  };
  std::optional<Weights> weights;
  try {
    weights.emplace(make_weights(job, device, ops, work));
  } catch (const Error& error) {
    if (error.code() != ExitCode::kDrained) throw;
  }
  float stopped = weights ? 0 : 1;
  world.all_reduce_sum(host_tensor(&stopped, DType::kF32, {1}));
  if (stopped > 0)
    throw AgreedError(
        ExitCode::kDrained,
        "told to stop while the model was loaded; nothing was begun, the same command "
        "goes on");
  return std::move(*weights);
}

// Ranks that all compute on CPUs need none.
DeviceLink device_link(const Job& job, const StepContext& where) {
  if (!job.uses_gpus) return {};
  return {.device = job.device.get(),
          .options = {job.options.timeout, &where, nullptr},
          .nccl = job.options.nccl};
}

}  // namespace

Worker::Worker(Communicator& world,
               const Job& job,
               StepContext& where,
               const std::function<int()>& told)
    : device(*job.device),
      grid(world, job.placement.shape, device_link(job, where)),
      ops(make_ops(job.options.ops, device, job.threads, job_ops_limits(job, job.placement.shape))),
      weights(load_weights(world, job, device, *ops, told)),
      model(make_model({job.config, job.placement, grid, device, *ops, weights, where}, job.model)),
      engine(grid, *model, device, job.model.limits, job.model.kv_blocks, job.config.vocab, where) {
  engine.use_drafts(job.drafts);
  if (world.rank() == 0 && !ops->note().empty())
    std::fputs(fmt::format("glm_infer: note: {}\n", ops->note()).c_str(), stderr);
  device.commit();
}

RunClock::RunClock(MpiSession& session, const Job& job, Worker& worker)
    : session_(session),
      job_(job),
      worker_(worker),
      recorder_(session, job, worker.grid),
      start_(std::chrono::steady_clock::now()),
      comm_before_(comm_seconds()) {}

double RunClock::comm_seconds() const {
  return worker_.grid.world().counters().seconds + worker_.grid.tensor().counters().seconds +
         worker_.grid.exchange().counters().seconds;
}

std::vector<RankReport> RunClock::reports() const {
  RankReport report;
  report.host = session_.host();
  report.device = worker_.device.name();
  report.device_bytes = worker_.device.allocated_bytes();
  report.transport = worker_.grid.transport_text();
  report.weight_bytes = worker_.weights.bytes();
  report.bytes_read = worker_.weights.bytes_read();
  report.load_seconds = worker_.weights.load_seconds();
  const RankPlan& plan = job_.plan.ranks[static_cast<size_t>(session_.world().rank())];
  report.plan_bytes = plan.total_bytes();
  if (plan.process_bytes > 0) report.plan_bytes += worker_.start_bytes - plan.process_bytes;
  report.peak_rss_bytes = peak_resident_bytes();
  report.run_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  report.comm_seconds = comm_seconds() - comm_before_;
  report.sent_bytes = worker_.grid.world().counters().sent_bytes +
                      worker_.grid.tensor().counters().sent_bytes +
                      worker_.grid.exchange().counters().sent_bytes;
  report.exchange = worker_.model->exchange_counters();
  report.threads = job_.threads;
  return gather_reports(session_.world(), report);
}

}  // namespace glm
