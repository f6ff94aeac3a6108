// What a run should take and how fast it should be, beside what it was: the memory plan and the
// model of time with the figures that glm_plan --measure has left for this host.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "apps/infer_report.h"
#include "core/model/machine.h"

namespace glm {

// $XDG_CACHE_HOME/glm_infer/machine.json, or that below ~/.cache; "" without a home.
std::filesystem::path machine_cache_path();
// "model name" of /proc/cpuinfo.
std::string cpu_model_name();
// Of this host, that its jobs may use.
int host_cores();

// The dtype of most of a job's weights.
DType body_dtype(const Job& job);
OrderedJson time_parts_json(const TimeParts& parts);

struct Prediction {
  std::optional<GridEstimate> estimate;  // of this run's workload
  std::string why_not;                   // where there is none
  int64_t sequences = 1;
  int64_t prompt_tokens = 0;  // of each
  double decode_tokens_per_second() const;
  double prefill_tokens_per_second() const;
};

// What was measured, per second; 0 where nothing was.
struct MeasuredRates {
  double prefill = 0;
  double decode = 0;
};

// Of a run of workload.sequences equal prompts at once; on rank 0. Reads the file of measured
// figures. stats: of the run, whose drafts nothing is known of.
Prediction predict_run(const Job& job,
                       const std::vector<RankReport>& reports,
                       const EngineStats& stats,
                       const Workload& workload);

std::string prediction_text(const Prediction& prediction,
                            const std::vector<RankReport>& reports,
                            const MeasuredRates& measured);
Json prediction_json(const Prediction& prediction,
                     const std::vector<RankReport>& reports,
                     const MeasuredRates& measured);

}  // namespace glm
