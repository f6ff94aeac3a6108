// SPDX-License-Identifier: MIT
#include "apps/infer_prediction.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>

#include "apps/infer_grid.h"

namespace glm {
namespace {

constexpr int64_t kMostDescription = 1 << 20;  // bytes

struct Found {
  std::optional<MachineSpec> spec;
  std::string why_not;
};

Found measured_machine() {
  const std::filesystem::path path = machine_cache_path();
  std::error_code error;
  if (path.empty() || !std::filesystem::is_regular_file(path, error))
    return {{}, "no figures of this host; glm_plan --measure takes them"};
  try {
    MachineSpec spec =
        parse_machine(read_file(path, kMostDescription, ExitCode::kModelFile), path.string());
    if (spec.cpu != cpu_model_name() || spec.cores_per_node != host_cores())
      return {{}, "the figures are of another host; glm_plan --measure takes those of this one"};
    return {std::move(spec), ""};
  } catch (const Error& failure) {
    return {{}, fmt::format("{}; glm_plan --measure writes it anew", failure.what())};
  }
}

double percent(double predicted, double actual) {
  return actual > 0 ? 100 * (predicted / actual - 1) : 0;
}

struct PartKey {
  const char* key;
  double TimeParts::*member;
};
constexpr PartKey kPartKeys[] = {{"weights", &TimeParts::weights},
                                 {"cache", &TimeParts::cache},
                                 {"arithmetic", &TimeParts::arithmetic},
                                 {"dispatch", &TimeParts::dispatch},
                                 {"combine", &TimeParts::combine},
                                 {"all_reduce", &TimeParts::sums},
                                 {"send", &TimeParts::sends},
                                 {"bubbles", &TimeParts::bubbles},
                                 {"head", &TimeParts::head},
                                 {"rest", &TimeParts::rest}};

}  // namespace

OrderedJson time_parts_json(const TimeParts& parts) {
  OrderedJson json = OrderedJson::object();
  for (const PartKey& part : kPartKeys) json[part.key] = parts.*part.member;
  return json;
}

DType body_dtype(const Job& job) { return job.stored.at("layers.0.attention.qkv").dtype; }

int host_cores() { return std::max(1, static_cast<int>(cpu_share(0, 1).cores.size())); }

std::filesystem::path machine_cache_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/')
    return std::filesystem::path(cache) / "glm_infer" / "machine.json";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return std::filesystem::path(home) / ".cache" / "glm_infer" / "machine.json";
}

std::string cpu_model_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name"))
      if (const size_t colon = line.find(": "); colon != std::string::npos)
        return line.substr(colon + 2);
  return "unknown";
}

double Prediction::decode_tokens_per_second() const {
  return estimate && estimate->decode_seconds > 0
             ? static_cast<double>(sequences) / estimate->decode_seconds
             : 0;
}

double Prediction::prefill_tokens_per_second() const {
  return estimate && estimate->prefill_seconds > 0
             ? static_cast<double>(prompt_tokens * sequences) / estimate->prefill_seconds
             : 0;
}

Prediction predict_run(const Job& job,
                       const std::vector<RankReport>& reports,
                       const EngineStats& stats,
                       const Workload& workload) {
  Prediction out;
  out.sequences = workload.sequences;
  out.prompt_tokens = workload.prompt_tokens;
  Found found = measured_machine();
  if (stats.drafts > 0) found = {{}, "tokens were drafted"};
  if (job.uses_gpus) found = {{}, "no figures of GPUs are measured yet"};
  if (!found.spec) {
    out.why_not = found.why_not;
    return out;
  }
  std::map<std::string, int> numbers;
  std::vector<int> hosts;
  for (const RankReport& report : reports)
    hosts.push_back(
        numbers.try_emplace(report.host, static_cast<int>(numbers.size())).first->second);
  if (numbers.size() > 1 && !found.spec->between) {
    out.why_not = "no figures of what lies between hosts; mpirun ... glm_plan --measure on them";
    return out;
  }
  const Machine machine =
      machine_for(*found.spec, body_dtype(job), hosts, found.spec->cores_per_node, job.threads);
  Workload work = workload;
  work.prompt_tokens = std::max<int64_t>(1, work.prompt_tokens);
  work.chunk_rows = job.model.limits.max_rows;
  out.estimate = estimate_grid(job.config,
                               model_costs(job.config, job.stored, job.model.kv_dtype),
                               job.placement.shape,
                               machine,
                               work,
                               &job.division);
  return out;
}

std::string prediction_text(const Prediction& prediction,
                            const std::vector<RankReport>& reports,
                            const MeasuredRates& measured) {
  double most = 0;
  size_t where = 0;
  for (size_t r = 0; r < reports.size(); ++r) {
    const double error = percent(static_cast<double>(reports[r].plan_bytes),
                                 static_cast<double>(reports[r].peak_rss_bytes));
    if (std::abs(error) < std::abs(most)) continue;
    most = error;
    where = r;
  }
  std::string text = fmt::format("predicted: memory {:.3f} GB, {:+.1f} % of the peak (rank {}); ",
                                 gigabytes(reports[where].plan_bytes),
                                 most,
                                 where);
  if (!prediction.estimate) return text + fmt::format("no speed: {}\n", prediction.why_not);
  const double prefill = prediction.prefill_tokens_per_second();
  const double decode = prediction.decode_tokens_per_second();
  text += fmt::format("prefill {:.1f} tokens/s", prefill);
  if (measured.prefill > 0) text += fmt::format(" ({:+.0f} %)", percent(prefill, measured.prefill));
  text += fmt::format(", decode {:.1f} tokens/s", decode);
  if (measured.decode > 0) text += fmt::format(" ({:+.0f} %)", percent(decode, measured.decode));
  return text + "\n";
}

Json prediction_json(const Prediction& prediction,
                     const std::vector<RankReport>& reports,
                     const MeasuredRates& measured) {
  Json memory = Json::array();
  for (const RankReport& report : reports)
    memory.push_back({{"predicted_bytes", report.plan_bytes},
                      {"actual_bytes", report.peak_rss_bytes},
                      {"error_percent",
                       percent(static_cast<double>(report.plan_bytes),
                               static_cast<double>(report.peak_rss_bytes))}});
  Json json = {{"memory", memory}};
  if (!prediction.estimate) {
    json["speed"] = nullptr;
    json["no_speed"] = prediction.why_not;
    return json;
  }
  const auto pair = [](double predicted, double actual) {
    return Json({{"predicted_tokens_per_second", predicted},
                 {"actual_tokens_per_second", actual},
                 {"error_percent", percent(predicted, actual)}});
  };
  json["speed"] = {{"prefill", pair(prediction.prefill_tokens_per_second(), measured.prefill)},
                   {"decode", pair(prediction.decode_tokens_per_second(), measured.decode)},
                   {"prefill_parts", Json(time_parts_json(prediction.estimate->prefill))},
                   {"decode_parts", Json(time_parts_json(prediction.estimate->decode))}};
  return json;
}

}  // namespace glm
