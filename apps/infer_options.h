// The command line of glm_infer, parsed and judged before anything else happens.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/launch.h"
#include "core/base/dtype.h"
#include "core/engine/draft_judge.h"
#include "kernels/ops.h"
#include "parallel/expert_exchange.h"
#include "parallel/nccl_groups.h"
#include "parallel/process_grid.h"

namespace CLI {
class App;
}

namespace glm {

// Tokens of an answer where neither the options nor the room in the context say less.
inline constexpr int64_t kDefaultMaxTokens = 1024;

enum class DeviceChoice : uint8_t { kAuto, kCpu, kCuda };

struct InferOptions {
  std::string model;  // or the config.json of --synthetic

  // Without a file; the dtypes also for plans from a config.json alone
  std::optional<std::string> synthetic;
  uint64_t synthetic_seed = 0;
  DType dtype = DType::kQ40;
  std::optional<DType> embedding_dtype, head_dtype;

  // Prompt
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  std::optional<std::string> tokens;  // raw ids, "1,2,3"
  bool raw = false;
  std::optional<std::string> system;
  std::optional<bool> thinking;
  std::optional<std::string> tools;  // a file
  bool chat = false;                 // no prompt: a conversation
  bool show_thinking = false;        // in it

  // Generation; absent values come from the model's generation_config.json
  std::optional<int64_t> max_tokens;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  uint64_t seed = 0;
  std::vector<std::string> stop;
  std::optional<int64_t> context;
  std::optional<DraftMode> mtp;  // default: auto, but off for measurements

  // Many requests
  std::optional<std::string> batch, output;
  bool resume = false;
  std::optional<std::string> state;      // kept for a job that goes on
  std::optional<double> state_interval;  // seconds from one save to the next
  std::optional<int64_t> max_sequences;  // at once on a data rank
  std::optional<int64_t> cache_tokens;   // positions of a data rank's cache

  // Ranks and machine
  GridRequest grid;
  ExchangeKind exchange = ExchangeKind::kAuto;
  std::vector<DeviceChoice> device = {DeviceChoice::kAuto};  // of all ranks, or of each
  bool allow_shared_gpu = false;
  NcclUse nccl = NcclUse::kAuto;
  std::optional<double> memory_fraction;
  std::optional<int> threads;
  std::vector<double> capacity;  // GB per rank, one value for all, or none
  OpsKind ops = OpsKind::kAuto;
  bool reproducible = false;
  std::optional<KvDType> kv_dtype;
  double timeout = 300;
  bool verify = true;

  // Reports
  bool dry_run = false;
  std::optional<int> ranks;  // of the plan, without mpirun
  std::optional<std::string> dump_logits;
  std::optional<std::string> record;     // an HDF5 file about the run
  std::optional<double> price_per_hour;  // of the whole job, in any currency
  std::vector<std::string> command_line;
  std::optional<int64_t> score_window;  // glm_eval: texts run in windows of so many tokens
  bool json = false;
  bool benchmark = false;
  int64_t prompt_tokens = 512;
  int repeat = 5;
  int64_t sequences = 1;  // of the benchmark, at once
  bool roofs = true;      // it measures them

  // glm_infer doctor
  bool doctor = false;
  double self_test_seconds = 4;
};

struct ParsedCommand : Launch {
  InferOptions options;
};

ParsedCommand parse_infer_command(int argc, char** argv);

// The group "Ranks and machine", which other programs of ranks have as well, and what goes with it.
void add_rank_options(CLI::App& app, InferOptions& options);
// --mtp, in no group of the help.
void add_mtp_option(CLI::App& app, InferOptions& options);
void judge_rank_options(const InferOptions& options);

// The word doctor, and what its options come to where it was given.
CLI::App* add_doctor_command(CLI::App& app, InferOptions& options);
void settle_doctor(const CLI::App& app, const CLI::App& doctor, InferOptions& options);

}  // namespace glm
