// What glm_plan finds out: every legal grid of a machine's ranks with its memory and its time, the
// best first. No rank runs. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/infer_grid.h"
#include "core/model/machine.h"

namespace glm {

struct PlanOptions {
  std::string model;
  DType dtype = DType::kQ40;
  std::optional<DType> embedding_dtype, head_dtype;
  std::optional<KvDType> kv_dtype;
  ExchangeKind exchange = ExchangeKind::kAuto;
  bool reproducible = false;
  GridRequest grid;  // axes that are given are kept

  std::string machine;  // a file, or the name of one that comes with the program
  std::optional<int> nodes, ranks_per_node;  // others than the description's
  double memory_fraction = 0.95;

  int64_t prompt_tokens = 512;
  int64_t max_tokens = 128;
  int64_t sequences = 1;
  std::optional<int64_t> context;

  int show = 5;  // grids in the table
  bool json = false;
  std::optional<std::string> sbatch;
};

// One grid of the machine's ranks.
struct PlannedGrid {
  GridShape shape;
  GridEstimate estimate;
  bool fits = false;
  int64_t largest_rank_bytes = 0;
  int limiting_rank = 0;  // the fullest, by what it may hold
};

struct PlanResult {
  MachineSpec machine;
  JobRanks ranks;
  Job job;  // on the best grid
  Workload workload;
  int64_t context = 0;
  int64_t bytes_per_token = 0;
  int64_t operations_per_prompt_token = 0;
  std::vector<PlannedGrid> grids;   // those that fit first, then by the time of the workload
  std::vector<std::string> advice;  // what would fit, where nothing does
  bool fits() const { return !grids.empty() && grids.front().fits; }
};

// Bundled descriptions by name, else a file. Throws Error(kUsage) when there is neither.
MachineSpec open_machine(const PlanOptions& options);
JobRanks ranks_of(const MachineSpec& spec, double memory_fraction);
int threads_of(const MachineSpec& spec);

PlanResult search_plan(const PlanOptions& options);

// Tokens per second of all sequences together.
double decode_rate(const PlanResult& result, const GridEstimate& grid);
double prefill_rate(const PlanResult& result, const GridEstimate& grid);

std::string plan_report_text(const PlanOptions& options, const PlanResult& result);
OrderedJson plan_report_json(const PlanOptions& options, const PlanResult& result);
// The batch script of the best grid.
std::string sbatch_text(const PlanOptions& options, const PlanResult& result);

}  // namespace glm
