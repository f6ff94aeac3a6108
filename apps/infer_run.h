// What glm_infer can do once the job is settled: answer, measure, plan. Each is collective and
// returns the exit code. SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "apps/infer_job.h"
#include "apps/infer_record.h"
#include "apps/infer_report.h"
#include "apps/launch.h"
#include "core/engine/engine.h"
#include "parallel/mpi_session.h"

namespace glm {

// A rank with everything it computes with. Construction loads the weights.
struct Worker {
  // told: the signal that has told this rank to stop, 0: none. When one is told while weights are
  // loaded, all leave by an AgreedError(kDrained).
  Worker(Communicator& world,
         const Job& job,
         StepContext& where,
         const std::function<int()>& told = {});
  Worker(MpiSession& session, const Job& job, StepContext& where)
      : Worker(session.world(), job, where) {}

  // Of the process before anything of the plan is allocated: texts and tokenizer are there by now.
  const int64_t start_bytes = peak_resident_bytes();
  Device& device;
  ProcessGrid grid;
  std::unique_ptr<Ops> ops;
  Weights weights;
  std::unique_ptr<Model> model;
  Engine engine;
};

// Times the collective part of a run on one rank and reports it; records it where the job wants
// that.
class RunClock {
 public:
  RunClock(MpiSession& session, const Job& job, Worker& worker);
  // Every rank's report, on every rank.
  std::vector<RankReport> reports() const;
  void begin_run() { recorder_.begin_run(); }  // of a benchmark
  // What all ranks have logged, on rank 0, once. Collective.
  RecordedRun recorded() { return recorder_.finish(); }

 private:
  double comm_seconds() const;

  MpiSession& session_;
  const Job& job_;
  Worker& worker_;
  RunRecorder recorder_;
  std::chrono::steady_clock::time_point start_;
  double comm_before_;
};

int run_answer(MpiSession& session, const Job& job, StepContext& where);
int run_batch(MpiSession& session, const Job& job, StepContext& where);
int run_chat(MpiSession& session, const Job& job, StepContext& where);
int run_benchmark(MpiSession& session, const Job& job, StepContext& where);
int run_dry(MpiSession& session, const Job& job);

}  // namespace glm
