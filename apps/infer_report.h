// What a run tells its user at the end: a summary on stderr and the JSON object of --json.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/infer_job.h"
#include "core/engine/engine.h"
#include "io/json.h"

namespace glm {

// Facts of one rank after a run; travels to rank 0 as JSON.
struct RankReport {
  std::string host;
  std::string device;        // "cpu", "cuda:0 (NVIDIA H200)"
  int64_t device_bytes = 0;  // allocated on it
  std::string transport;     // between GPUs; "" where no rank has one
  int64_t weight_bytes = 0;
  int64_t bytes_read = 0;
  double load_seconds = 0;
  int64_t plan_bytes = 0;
  int64_t peak_rss_bytes = 0;
  double run_seconds = 0;
  double comm_seconds = 0;  // inside collectives, waiting included
  int64_t sent_bytes = 0;
  ExchangeCounters exchange;
  int threads = 1;
};

// Every rank's report, on every rank. Collective.
std::vector<RankReport> gather_reports(Communicator& world, const RankReport& mine);

// What the hosts could do at best with all threads of all ranks at once, per second; or, where
// ranks compute on GPUs, what these could.
struct Roofs {
  bool of_gpus = false;
  double read = 0;  // bytes from memory; of GPUs read and written by a copy
  double int8 = 0;  // operations of int8 dot products, data in registers; not measured on GPUs
  int64_t read_bytes_per_thread = 0;  // of a GPU: bytes that are copied
};

struct BenchmarkResult {
  std::vector<double> prefill_tokens_per_second;  // of each run
  std::vector<double> decode_tokens_per_second;
  Roofs before;  // the runs
  Roofs after;
  int64_t bytes_per_token = 0;
  int64_t operations_per_prompt_token = 0;
  bool rows_share_weights = false;  // several rows of a decode step: no share of the read roof
};
double median(std::vector<double> values);
// Per second; 0 where no time has passed.
double rate(int64_t count, double seconds);

// Which model: {"path"}, and "synthetic_seed" where its weights are random numbers.
Json model_json(const Job& job);
Json grid_json(const Job& job);
Json ranks_json(const Job& job, const std::vector<RankReport>& reports);
Json plan_json(const Job& job);
Json benchmark_json(const InferOptions& options, const BenchmarkResult& result);

// --price-per-hour: what the run has cost, in the currency of the price. Null without a price.
Json cost_json(const Job& job, const std::vector<RankReport>& reports, const EngineStats& stats);

// What came of drafts.
Json drafts_json(const Job& job, const EngineStats& stats);

std::string summary_text(const Job& job,
                         const std::vector<RankReport>& reports,
                         const EngineStats& stats,
                         int64_t bytes_per_token);
std::string benchmark_text(const InferOptions& options, const BenchmarkResult& result);

}  // namespace glm
