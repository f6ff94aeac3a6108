// SPDX-License-Identifier: MIT
#include "apps/infer_report.h"

#include <algorithm>

namespace glm {
namespace {

Json to_json(const RankReport& r) {
  return {{"host", r.host},
          {"device", r.device},
          {"device_bytes", r.device_bytes},
          {"transport", r.transport},
          {"weight_bytes", r.weight_bytes},
          {"bytes_read", r.bytes_read},
          {"load_seconds", r.load_seconds},
          {"plan_bytes", r.plan_bytes},
          {"peak_rss_bytes", r.peak_rss_bytes},
          {"run_seconds", r.run_seconds},
          {"comm_seconds", r.comm_seconds},
          {"sent_bytes", r.sent_bytes},
          {"dispatch_calls", r.exchange.dispatch_calls},
          {"combine_calls", r.exchange.combine_calls},
          {"dispatched_rows", r.exchange.rows_sent},
          {"dispatched_bytes", r.exchange.bytes_sent},
          {"threads", r.threads}};
}

RankReport from_json(const Json& json) {
  RankReport r;
  r.host = json.at("host").get<std::string>();
  r.device = json.at("device").get<std::string>();
  r.device_bytes = json.at("device_bytes").get<int64_t>();
  r.transport = json.at("transport").get<std::string>();
  r.weight_bytes = json.at("weight_bytes").get<int64_t>();
  r.bytes_read = json.at("bytes_read").get<int64_t>();
  r.load_seconds = json.at("load_seconds").get<double>();
  r.plan_bytes = json.at("plan_bytes").get<int64_t>();
  r.peak_rss_bytes = json.at("peak_rss_bytes").get<int64_t>();
  r.run_seconds = json.at("run_seconds").get<double>();
  r.comm_seconds = json.at("comm_seconds").get<double>();
  r.sent_bytes = json.at("sent_bytes").get<int64_t>();
  r.exchange.dispatch_calls = json.at("dispatch_calls").get<int64_t>();
  r.exchange.combine_calls = json.at("combine_calls").get<int64_t>();
  r.exchange.rows_sent = json.at("dispatched_rows").get<int64_t>();
  r.exchange.bytes_sent = json.at("dispatched_bytes").get<int64_t>();
  r.threads = json.at("threads").get<int>();
  return r;
}

const char* mode_name(DraftMode mode) {
  if (mode == DraftMode::kOff) return "off";
  return mode == DraftMode::kOn ? "on" : "auto";
}

double share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

// A line for each rank, and one for what connects them.
std::string devices_text(const std::vector<RankReport>& reports) {
  std::string text;
  for (size_t r = 0; r < reports.size(); ++r)
    text += fmt::format("rank {} on {}: {:.3f} GB taken\n",
                        r,
                        reports[r].device,
                        gigabytes(reports[r].device_bytes));
  if (reports.size() > 1) text += fmt::format("between them: {}\n", reports[0].transport);
  return text;
}

// A line, or none where drafts are off because nobody wants them.
std::string drafts_text(const Job& job, const EngineStats& stats) {
  if (job.drafts == DraftMode::kOff) {
    if (job.no_drafts.empty() || !job.with_mtp) return {};
    return fmt::format("drafts: off, {}\n", job.no_drafts);
  }
  std::string text = fmt::format("drafts: {} of {} right ({:.1f} %), {:.2f} tokens per step",
                                 stats.accepted,
                                 stats.drafts,
                                 100 * share(stats.accepted, stats.drafts),
                                 share(stats.decode_tokens, stats.decode_rows));
  if (stats.gave_up)
    text +=
        fmt::format("; switched off, with them {:.2f} times the speed without", stats.draft_gain);
  else if (stats.draft_gain > 0)
    text += fmt::format("; {:.2f} times the speed without", stats.draft_gain);
  return text + "\n";
}

// A line, or none without a price.
std::string cost_text(const Json& cost) {
  if (cost.is_null()) return {};
  const auto price = [&](const char* key) {
    return cost.at(key).is_null() ? std::string("none")
                                  : fmt::format("{:.4g}", cost.at(key).get<double>());
  };
  return fmt::format(
      "cost: {} for this run without loading; a million prompt tokens {}, a million "
      "answer tokens {}\n",
      price("run"),
      price("million_prompt_tokens"),
      price("million_answer_tokens"));
}

// Medians against the higher of the two measurements of a roof.
struct Shares {
  explicit Shares(const BenchmarkResult& result)
      : read_roof(std::max(result.before.read, result.after.read)),
        int8_roof(std::max(result.before.int8, result.after.int8)),
        bytes(median(result.decode_tokens_per_second) *
              static_cast<double>(result.bytes_per_token)),
        operations(median(result.prefill_tokens_per_second) *
                   static_cast<double>(result.operations_per_prompt_token)),
        read(read_roof > 0 ? bytes / read_roof : 0),
        int8(int8_roof > 0 ? operations / int8_roof : 0) {}

  double read_roof;
  double int8_roof;
  double bytes;  // per second
  double operations;
  double read;
  double int8;
};

Json roofs_json(const Roofs& roofs) {
  return {{"of", roofs.of_gpus ? "copies on GPUs" : "hosts"},
          {"read_bytes_per_second", roofs.read},
          {"read_bytes_per_thread", roofs.read_bytes_per_thread},
          {"int8_operations_per_second", roofs.int8}};
}

std::string roofs_text(const Roofs& before, const Roofs& after) {
  if (before.of_gpus)
    return fmt::format(
        "roofs before and after: the GPUs' copies read and write {:.2f} and {:.2f} GB/s\n",
        gigabytes(before.read),
        gigabytes(after.read));
  const int64_t bytes = std::min(before.read_bytes_per_thread, after.read_bytes_per_thread);
  return fmt::format(
      "roofs before and after: reads {:.2f} and {:.2f} GB/s ({:.2f} GiB per thread), int8 {:.1f} "
      "and {:.1f} G operations/s\n",
      gigabytes(before.read),
      gigabytes(after.read),
      static_cast<double>(bytes) / static_cast<double>(int64_t{1} << 30),
      gigabytes(before.int8),
      gigabytes(after.int8));
}

std::string samples_text(const std::vector<double>& samples) {
  if (samples.empty()) return "0";
  const auto [lowest, highest] = std::minmax_element(samples.begin(), samples.end());
  return fmt::format("{:.2f} ({:.2f} to {:.2f})", median(samples), *lowest, *highest);
}

Json coord_json(const GridCoord& coord) {
  return {{"data", coord.data},
          {"pipeline", coord.pipeline},
          {"tensor", coord.tensor},
          {"expert", coord.expert}};
}

}  // namespace

std::vector<RankReport> gather_reports(Communicator& world, const RankReport& mine) {
  std::vector<RankReport> reports;
  for (const std::string& text : all_gather_strings(world, to_json(mine).dump()))
    reports.push_back(from_json(Json::parse(text)));
  return reports;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

Json model_json(const Job& job) {
  Json json = {{"path", escaped(job.source.path, 4096)}};
  if (job.source.synthetic) json["synthetic_seed"] = job.source.synthetic->seed;
  return json;
}

Json grid_json(const Job& job) {
  const GridShape& shape = job.placement.shape;
  return {{"data", shape.data},
          {"pipeline", shape.pipeline},
          {"tensor", shape.tensor},
          {"expert", shape.expert}};
}

Json plan_json(const Job& job) {
  Json ranks = Json::array();
  for (const RankPlan& plan : job.plan.ranks) {
    Json kinds = Json::object();
    for (const auto& [kind, bytes] : plan.weights) kinds[std::string(kind_name(kind))] = bytes;
    ranks.push_back({{"coord", coord_json(plan.coord)},
                     {"layers", {plan.layers.begin, plan.layers.end}},
                     {"experts", {plan.experts.begin, plan.experts.end}},
                     {"weight_bytes", plan.weight_bytes()},
                     {"weight_bytes_by_kind", kinds},
                     {"replicated_bytes", plan.replicated_bytes},
                     {"kv_bytes", plan.kv_bytes},
                     {"buffer_bytes", plan.buffer_bytes},
                     {"process_bytes", plan.process_bytes},
                     {"total_bytes", plan.total_bytes()}});
  }
  return {{"model", model_json(job)},
          {"grid", grid_json(job)},
          {"grid_reason", job.grid_reason},
          {"model_bytes", job.plan.model_bytes},
          {"mtp_bytes", job.plan.mtp_bytes},
          {"mtp_loaded", job.plan.mtp_loaded},
          {"ranks", ranks}};
}

Json drafts_json(const Job& job, const EngineStats& stats) {
  return {{"mode", mode_name(job.drafts)},
          {"reason", job.no_drafts},
          {"verified", stats.drafts},
          {"accepted", stats.accepted},
          {"acceptance_rate", share(stats.accepted, stats.drafts)},
          {"tokens_per_step", share(stats.decode_tokens, stats.decode_rows)},
          {"gain", stats.draft_gain},
          {"switched_off", stats.gave_up}};
}

Json cost_json(const Job& job, const std::vector<RankReport>& reports, const EngineStats& stats) {
  if (!job.options.price_per_hour) return nullptr;
  const double per_second = *job.options.price_per_hour / 3600;
  double run = 0;
  for (const RankReport& report : reports) run = std::max(run, report.run_seconds);
  const auto million = [&](double seconds, int64_t tokens) -> Json {
    if (tokens == 0) return nullptr;
    return per_second * seconds / static_cast<double>(tokens) * 1e6;
  };
  return {{"price_per_hour", *job.options.price_per_hour},
          {"run", per_second * run},
          {"million_prompt_tokens", million(stats.prefill_seconds, stats.prefill_tokens)},
          {"million_answer_tokens", million(stats.decode_seconds, stats.decode_tokens)}};
}

// The plan's rows with what was measured beside it.
Json ranks_json(const Job& job, const std::vector<RankReport>& reports) {
  Json ranks = plan_json(job).at("ranks");
  for (size_t r = 0; r < reports.size(); ++r) {
    ranks[r]["planned_weight_bytes"] = ranks[r]["weight_bytes"];
    ranks[r].update(to_json(reports[r]));
  }
  return ranks;
}

Json benchmark_json(const InferOptions& options, const BenchmarkResult& result) {
  const std::vector<double>& prefill = result.prefill_tokens_per_second;
  const std::vector<double>& decode = result.decode_tokens_per_second;
  const Shares shares(result);
  Json json = {{"prompt_tokens", options.prompt_tokens},
               {"max_tokens", options.max_tokens.value_or(0)},
               {"sequences", options.sequences},
               {"repeat", options.repeat},
               {"prefill_tokens_per_second", median(prefill)},
               {"decode_tokens_per_second", median(decode)},
               {"prefill_samples", prefill},
               {"decode_samples", decode},
               {"bytes_per_token", result.bytes_per_token},
               {"operations_per_prompt_token", result.operations_per_prompt_token}};
  if (!options.roofs) return json;
  json.update({{"roofs_before", roofs_json(result.before)},
               {"roofs_after", roofs_json(result.after)},
               {"read_bandwidth_bytes_per_second", shares.read_roof},
               {"int8_peak_operations_per_second", shares.int8_roof},
               {"int8_share", shares.int8}});
  if (!result.rows_share_weights) json["bandwidth_share"] = shares.read;
  return json;
}

std::string summary_text(const Job& job,
                         const std::vector<RankReport>& reports,
                         const EngineStats& stats,
                         int64_t bytes_per_token) {
  const double decode = rate(stats.decode_tokens, stats.decode_seconds);
  // mpirun forwards the two streams apart: the summary may come before the answer's last newline.
  std::string out = fmt::format("\ngrid: {}\n", job.placement.shape.text());
  if (!job.grid_reason.empty()) out += fmt::format("grid {}\n", job.grid_reason);
  if (job.source.synthetic)
    out += fmt::format("model: synthetic, seed {}\n", job.source.synthetic->seed);
  out += "rank  host              layers     weights GB  read GB/s  peak RSS GB  plan GB  comm %\n";
  for (size_t r = 0; r < reports.size(); ++r) {
    const RankReport& report = reports[r];
    const Range layers = job.plan.ranks[r].layers;
    out += fmt::format(
        "{:>4}  {:<16}  {:<9}  {:>10.3f}  {:>9.2f}  {:>11.3f}  {:>7.3f}  {:>6.1f}\n",
        r,
        report.host.substr(0, 16),
        layers.size() == 0 ? "none" : fmt::format("{}-{}", layers.begin, layers.end - 1),
        gigabytes(report.weight_bytes),
        gigabytes(rate(report.bytes_read, report.load_seconds)),
        gigabytes(report.peak_rss_bytes),
        gigabytes(report.plan_bytes),
        report.run_seconds > 0 ? 100 * report.comm_seconds / report.run_seconds : 0.0);
  }
  if (job.uses_gpus) out += devices_text(reports);
  ExchangeCounters exchange;
  double load = 0;
  for (const RankReport& report : reports) {
    load = std::max(load, report.load_seconds);
    exchange.dispatch_calls += report.exchange.dispatch_calls;
    exchange.combine_calls += report.exchange.combine_calls;
    exchange.rows_sent += report.exchange.rows_sent;
    exchange.bytes_sent += report.exchange.bytes_sent;
  }
  if (job.config.is_moe())
    out += fmt::format("exchange: {} dispatches, {} combines, {} rows and {:.3f} MB sent\n",
                       exchange.dispatch_calls,
                       exchange.combine_calls,
                       exchange.rows_sent,
                       static_cast<double>(exchange.bytes_sent) * 1e-6);
  out +=
      fmt::format("load: {:.2f} s; first token after {:.3f} s\n", load, stats.first_token_seconds);
  out += fmt::format("prefill: {} tokens, {:.1f} tokens/s\n",
                     stats.prefill_tokens,
                     rate(stats.prefill_tokens, stats.prefill_seconds));
  out += fmt::format("decode: {} tokens, {:.1f} tokens/s", stats.decode_tokens, decode);
  // Each token alone reads the weights; two rows of a step share them.
  if (stats.drafts == 0)
    out += fmt::format(", {:.2f} GB/s of weights",
                       gigabytes(decode * static_cast<double>(bytes_per_token)));
  return out + "\n" + drafts_text(job, stats) + cost_text(cost_json(job, reports, stats));
}

std::string benchmark_text(const InferOptions& options, const BenchmarkResult& result) {
  const Shares shares(result);
  std::string out = fmt::format(
      "benchmark: {} prompt tokens, {} answer tokens, median of {} (lowest to highest)\n",
      options.prompt_tokens,
      options.max_tokens.value_or(0),
      options.repeat);
  if (options.roofs) out += roofs_text(result.before, result.after);
  out += fmt::format("prefill: {} tokens/s, {:.4f} G operations per token, {:.1f} G operations/s",
                     samples_text(result.prefill_tokens_per_second),
                     gigabytes(result.operations_per_prompt_token),
                     gigabytes(shares.operations));
  if (shares.int8_roof > 0)
    out += fmt::format(", {:.1f} % of the measured int8 peak of {:.1f}",
                       100 * shares.int8,
                       gigabytes(shares.int8_roof));
  out += "\n";
  out += fmt::format("decode: {} tokens/s, {:.4f} GB per token",
                     samples_text(result.decode_tokens_per_second),
                     gigabytes(result.bytes_per_token));
  if (result.rows_share_weights) return out + "; rows of a step share them\n";
  if (!options.roofs) return out + fmt::format(", {:.2f} GB/s\n", gigabytes(shares.bytes));
  return out + fmt::format(", {:.2f} GB/s, {:.1f} % of the measured {} bandwidth of {:.2f} GB/s\n",
                           gigabytes(shares.bytes),
                           100 * shares.read,
                           result.before.of_gpus ? "copy" : "read",
                           gigabytes(shares.read_roof));
}

}  // namespace glm
