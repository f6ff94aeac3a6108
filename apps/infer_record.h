// --record: what a job keeps of itself beside its answers, gathered on rank 0 and written as one
// HDF5 file (docs/run_records.md). SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/infer_report.h"
#include "core/base/step_log.h"
#include "parallel/mpi_session.h"
#include "parallel/process_grid.h"

namespace glm {

class HostEnergy;

// A rank's log and what says where it ran.
struct RecordedRank {
  Json facts;
  std::vector<StepLog::Pass> passes;
  std::vector<int64_t> expert_counts;  // StepLog::expert_counts()
  std::vector<int32_t> expert_trace;
};

// Of a job without --record, and on all ranks but the first: nothing.
struct RecordedRun {
  std::vector<RecordedRank> ranks;
  bool empty() const { return ranks.empty(); }
};

// Lets a rank log its passes from its construction on, where the job wants that.
class RunRecorder {
 public:
  RunRecorder(MpiSession& session, const Job& job, ProcessGrid& grid);
  ~RunRecorder();
  RunRecorder(const RunRecorder&) = delete;
  RunRecorder& operator=(const RunRecorder&) = delete;

  void begin_run();  // of a benchmark
  // Ends the log; collective.
  RecordedRun finish();

 private:
  Json facts() const;
  void split_waits();

  MpiSession& session_;
  const Job& job_;
  ProcessGrid& grid_;
  std::unique_ptr<StepLog> log_;
  std::unique_ptr<HostEnergy> energy_;  // on the first rank of each host
};

// Before anything is loaded: whether the record can be written at all. Collective.
void check_record(MpiSession& session, const Job& job);

// What a job has done; the parts that summaries know.
struct RunFigures {
  std::string mode;  // "answer", "batch", "chat", "benchmark"
  std::vector<RankReport> reports;
  EngineStats stats;
  Json result;  // of the mode, or null
};

// Rank 0: writes the file and says so on stderr; does nothing with an empty run.
void write_record(const Job& job, const RecordedRun& run, const RunFigures& figures);

}  // namespace glm
