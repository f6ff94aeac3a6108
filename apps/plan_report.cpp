// What glm_plan prints. SPDX-License-Identifier: MIT
#include <algorithm>

#include "apps/infer_prediction.h"
#include "apps/plan_search.h"

namespace glm {
namespace {

struct PartName {
  const char* text;
  double TimeParts::*member;
};
constexpr PartName kParts[] = {
    {"weights read", &TimeParts::weights},
    {"keys and values read", &TimeParts::cache},
    {"arithmetic", &TimeParts::arithmetic},
    {"dispatch to experts", &TimeParts::dispatch},
    {"combine", &TimeParts::combine},
    {"all-reduces", &TimeParts::sums},
    {"sends between stages", &TimeParts::sends},
    {"pipeline bubbles", &TimeParts::bubbles},
    {"head", &TimeParts::head},
    {"small operations, steps", &TimeParts::rest},
};

OrderedJson shape_json(const GridShape& shape) {
  return {{"data", shape.data},
          {"pipeline", shape.pipeline},
          {"tensor", shape.tensor},
          {"expert", shape.expert}};
}

double first_token_seconds(const PlanResult& result, const GridEstimate& grid) {
  return grid.prefill_seconds / static_cast<double>(result.workload.sequences);
}

OrderedJson planned_json(const PlanResult& result, const PlannedGrid& grid) {
  return {{"grid", shape_json(grid.shape)},
          {"fits", grid.fits},
          {"largest_rank_bytes", grid.largest_rank_bytes},
          {"limiting_rank", grid.limiting_rank},
          {"decode_tokens_per_second", decode_rate(result, grid.estimate)},
          {"prefill_tokens_per_second", prefill_rate(result, grid.estimate)},
          {"decode_seconds", grid.estimate.decode_seconds},
          {"prefill_seconds", grid.estimate.prefill_seconds},
          {"total_seconds", grid.estimate.total_seconds},
          {"decode_parts", time_parts_json(grid.estimate.decode)},
          {"prefill_parts", time_parts_json(grid.estimate.prefill)}};
}

std::string parts_text(const GridEstimate& grid) {
  std::string text = fmt::format("{:<26} {:>16} {:>6} {:>12} {:>6}\n",
                                 "where the time goes",
                                 "decode ms/token",
                                 "%",
                                 "prefill ms",
                                 "%");
  for (const PartName& part : kParts) {
    const double decode = grid.decode.*part.member;
    const double prefill = grid.prefill.*part.member;
    if (decode + prefill <= 0) continue;
    text += fmt::format("{:<26} {:>16.3f} {:>6.1f} {:>12.1f} {:>6.1f}\n",
                        part.text,
                        decode * 1e3,
                        100 * decode / grid.decode_seconds,
                        prefill * 1e3,
                        100 * prefill / std::max(grid.prefill_seconds, 1e-12));
  }
  return text + fmt::format("{:<26} {:>16.3f} {:>6} {:>12.1f}\n",
                            "together",
                            grid.decode_seconds * 1e3,
                            "",
                            grid.prefill_seconds * 1e3);
}

std::string grids_text(const PlanOptions& options, const PlanResult& result) {
  std::string text = fmt::format("{:<44} {:>15} {:>16} {:>10} {:>16}\n",
                                 "grid",
                                 "decode tokens/s",
                                 "prefill tokens/s",
                                 "all in s",
                                 "fullest rank GB");
  const auto shown = std::min(result.grids.size(), static_cast<size_t>(options.show));
  for (size_t i = 0; i < shown; ++i) {
    const PlannedGrid& grid = result.grids[i];
    text += fmt::format("{:<44} {:>15.1f} {:>16.1f} {:>10.2f} {:>16.2f}{}\n",
                        grid.shape.text(),
                        decode_rate(result, grid.estimate),
                        prefill_rate(result, grid.estimate),
                        grid.estimate.total_seconds,
                        gigabytes(grid.largest_rank_bytes),
                        grid.fits ? "" : "  does not fit");
  }
  return text;
}

std::string header_text(const PlanOptions& options, const PlanResult& result) {
  const MachineSpec& m = result.machine;
  const std::string places =
      m.gpu
          ? fmt::format(
                "{} GPUs on each of {} node{}", m.ranks_per_node, m.nodes, m.nodes == 1 ? "" : "s")
          : fmt::format("{} rank{} of {} threads on each of {} node{}",
                        m.ranks_per_node,
                        m.ranks_per_node == 1 ? "" : "s",
                        result.job.threads,
                        m.nodes,
                        m.nodes == 1 ? "" : "s");
  return fmt::format(
      "machine: {}; {} (figures: {})\n"
      "workload: {} prompt tokens, {} new tokens, {} sequence{} at once, context {}\n"
      "a token reads {:.2f} GB of weights, a prompt's token takes {:.2f} G operations\n",
      escaped(m.name, 200),
      places,
      m.figures.empty() ? "not stated" : escaped(m.figures, 200),
      options.prompt_tokens,
      options.max_tokens,
      options.sequences,
      options.sequences == 1 ? "" : "s",
      result.context,
      gigabytes(result.bytes_per_token),
      gigabytes(result.operations_per_prompt_token));
}

}  // namespace

std::string plan_report_text(const PlanOptions& options, const PlanResult& result) {
  const PlannedGrid& best = result.grids.front();
  std::string text = header_text(options, result) + "\n" + grids_text(options, result) + "\n";
  text += fmt::format(
      "{}: {}\n",
      result.fits() ? "bytes of the best grid" : "bytes of the fastest grid, which does not fit",
      best.shape.text());
  text += plan_text(result.job.config, result.job.plan);
  const auto limiting = static_cast<size_t>(best.limiting_rank);
  text += fmt::format("fullest rank: {}, {:.2f} GB of {:.2f} GB\n\n",
                      limiting,
                      gigabytes(result.job.plan.ranks[limiting].total_bytes()),
                      gigabytes(result.job.capacities.empty() ? result.ranks.available[limiting]
                                                              : result.job.capacities[limiting]));
  text += parts_text(best.estimate);
  text += fmt::format(
      "predicted: decode {:.1f} tokens/s, prefill {:.1f} tokens/s, first token after {:.3f} s\n",
      decode_rate(result, best.estimate),
      prefill_rate(result, best.estimate),
      first_token_seconds(result, best.estimate));
  return text;
}

OrderedJson plan_report_json(const PlanOptions& options, const PlanResult& result) {
  OrderedJson grids = OrderedJson::array();
  for (const PlannedGrid& grid : result.grids) grids.push_back(planned_json(result, grid));
  const PlannedGrid& best = result.grids.front();
  return {{"fits", result.fits()},
          {"machine", machine_json(result.machine)},
          {"workload",
           {{"prompt_tokens", options.prompt_tokens},
            {"max_tokens", options.max_tokens},
            {"sequences", options.sequences},
            {"context", result.context}}},
          {"bytes_per_token", result.bytes_per_token},
          {"operations_per_prompt_token", result.operations_per_prompt_token},
          {"best", planned_json(result, best)},
          {"plan", OrderedJson(plan_json(result.job))},
          {"grids", grids},
          {"advice", result.advice}};
}

}  // namespace glm
