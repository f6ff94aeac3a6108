// The batch script of a plan: the conventions of slurm/ with the plan's numbers in it.
// SPDX-License-Identifier: MIT
#include "apps/plan_search.h"

namespace glm {
namespace {

// For a single-quoted word of bash.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  }
  return out + "'";
}

std::string job_options(const PlanOptions& options, const PlanResult& result) {
  std::string out = fmt::format("--max-tokens {} --context {}", options.max_tokens, result.context);
  if (options.kv_dtype) out += fmt::format(" --kv-dtype {}", kv_dtype_name(*options.kv_dtype));
  if (options.exchange != ExchangeKind::kAuto)
    out += options.exchange == ExchangeKind::kReduce ? " --expert-exchange reduce"
                                                     : " --expert-exchange alltoall";
  if (options.reproducible) out += " --reproducible";
  if (!result.machine.gpu) out += fmt::format(" --threads {}", result.job.threads);
  if (!result.machine.ranks.empty()) {
    out += " --capacity ";
    for (size_t r = 0; r < result.machine.ranks.size(); ++r)
      out += fmt::format(
          "{}{:g}", r == 0 ? "" : ",", static_cast<double>(result.ranks.available[r]) * 1e-9);
  }
  if (options.sequences > 1)
    out += fmt::format(" --max-sequences {}", result.job.options.sequences);
  return out;
}

// What is asked of the model: one prompt, or a file of requests where several run at once.
std::string work_variables(const PlanOptions& options) {
  if (options.sequences == 1) return "PROMPT=${PROMPT:-What is the capital of France?}\n";
  return "BATCH=${BATCH:?set BATCH to a file of requests, one JSON object a line}\n"
         "OUTPUT=${OUTPUT:-answers-$SLURM_JOB_ID.jsonl}\n";
}

}  // namespace

std::string sbatch_text(const PlanOptions& options, const PlanResult& result) {
  const MachineSpec& machine = result.machine;
  const GridShape& shape = result.grids.front().shape;
  const GridEstimate& estimate = result.grids.front().estimate;
  std::string grid =
      fmt::format("--data {} --pipeline {} --tensor {}", shape.data, shape.pipeline, shape.tensor);
  if (result.job.config.is_moe()) grid += fmt::format(" --expert {}", shape.expert);
  std::string text = fmt::format(
      "#!/bin/bash\n"
      "# Written by glm_plan: {}.\n"
      "# Predicted: decode {:.1f} tokens/s, prefill {:.1f} tokens/s, {:.2f} GB on the fullest "
      "rank.\n"
      "#SBATCH --job-name=glm\n"
      "#SBATCH --nodes={}\n"
      "#SBATCH --ntasks-per-node={}\n"
      "#SBATCH --cpus-per-task={}\n",
      shape.text(),
      decode_rate(result, estimate),
      prefill_rate(result, estimate),
      gigabytes(result.grids.front().largest_rank_bytes),
      machine.nodes,
      machine.ranks_per_node,
      result.job.threads);
  if (machine.gpu) text += fmt::format("#SBATCH --gpus-per-node={}\n", machine.ranks_per_node);
  if (machine.nodes > 1) text += "#SBATCH --exclusive\n#SBATCH --mem=0\n";
  text +=
      "#SBATCH --time=01:00:00\n"
      "#SBATCH --output=%x-%j.out\n"
      "set -euo pipefail\n\n";
  text += fmt::format("MODEL=${{MODEL:-{}}}\n",
                      result.job.source.index ? quoted(options.model) : "MODEL.h5");
  text += work_variables(options);
  text += fmt::format(
      "PROGRAM=${{PROGRAM:-glm_infer}}\n"
      "DEVICE=${{DEVICE:-{}}}\n"
      "GRID=${{GRID:-{}}}\n"
      "OPTIONS=${{OPTIONS:-{}}}\n\n",
      machine.gpu ? "cuda" : "cpu",
      grid,
      job_options(options, result));
  text +=
      "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}   # srun does not take it over from "
      "sbatch\n"
      "read -r -a grid <<< \"$GRID\"\n"
      "read -r -a options <<< \"$OPTIONS\"\n\n"
      "echo \"job $SLURM_JOB_ID: $SLURM_NTASKS ranks on $SLURM_JOB_NODELIST\"\n"
      "\"$PROGRAM\" --model \"$MODEL\" --dry-run --ranks \"$SLURM_NTASKS\" \"${grid[@]}\"\n"
      "srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores --distribution=block:block \\\n"
      "  \"$PROGRAM\" --model \"$MODEL\" --device \"$DEVICE\" \"${grid[@]}\" \"${options[@]}\" "
      "\\\n";
  text += options.sequences == 1 ? "  --prompt \"$PROMPT\"\n"
                                 : "  --batch \"$BATCH\" --output \"$OUTPUT\"\n";
  return text + "echo \"job $SLURM_JOB_ID: all ranks ended well\"\n";
}

}  // namespace glm
