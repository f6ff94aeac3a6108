// The tables of a run record. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <limits>
#include <set>

#include <unistd.h>

#include "apps/infer_record.h"
#include "apps/program.h"
#include "core/model/token_bytes.h"
#include "io/run_record.h"

namespace glm {
namespace {

// Entries of the routing trace, over all steps.
constexpr int64_t kMostTraced = int64_t{1} << 22;

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  const size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return std::string(text, n);
}

// Variables that say how a job was launched and what it was told. Words in names that stand for
// secrets are left out.
bool matters(const std::string& name) {
  const auto begins = [&](const char* prefix) { return name.starts_with(prefix); };
  const auto has = [&](const char* word) { return name.find(word) != name.npos; };
  const bool ours = begins("GLM_") || begins("OMP_") || begins("OMPI_MCA_") || begins("SLURM_") ||
                    begins("CUDA_") || begins("NCCL_") || begins("UCX_") || begins("HDF5_") ||
                    begins("MALLOC_") || name == "LD_LIBRARY_PATH" || name == "LD_PRELOAD";
  return ours && !has("KEY") && !has("TOKEN") && !has("SECRET") && !has("PASS") && !has("JWT") &&
         !has("CRED") && !has("precondition");
}

Json environment_json() {
  Json out = Json::object();
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string line = *at;
    const size_t sign = line.find('=');
    if (sign != line.npos && matters(line.substr(0, sign)))
      out[escaped(line.substr(0, sign), 128)] = escaped(line.substr(sign + 1), 4096);
  }
  return out;
}

// What a model of time needs to know of the model (docs/scaling_studies.md).
Json shape_json(const Job& job) {
  const ModelConfig& c = job.config;
  Json shape = {{"family", std::string(family_name(c.family))},
                {"layers", c.n_layers},
                {"hidden", c.hidden},
                {"heads", c.n_heads},
                {"kv_heads", c.n_kv_heads},
                {"head_dim", c.head_dim},
                {"vocab", c.vocab},
                {"intermediate", c.intermediate},
                {"bytes_per_token", bytes_per_token(job.config, job.stored)},
                {"operations_per_prompt_token", operations_per_prompt_token(job.config)},
                {"model_bytes", job.plan.model_bytes}};
  if (c.is_moe())
    shape["moe"] = {{"experts", c.router.n_experts},
                    {"top_k", c.router.top_k},
                    {"intermediate", c.moe_intermediate},
                    {"shared_intermediate", c.shared_intermediate}};
  return shape;
}

// Each host once: its ranks, the cores they have, whether they share cores, its energy.
Json hosts_json(const std::vector<RecordedRank>& ranks) {
  std::map<std::string, std::vector<const RecordedRank*>> by_host;
  for (const RecordedRank& rank : ranks)
    by_host[rank.facts.at("host").get<std::string>()].push_back(&rank);
  Json out = Json::array();
  for (const auto& [host, members] : by_host) {
    std::set<int> cores;
    int threads = 0;
    size_t physical = 0;
    Json energy = {{"absent", "not counted"}};
    for (const RecordedRank* rank : members) {
      for (const int core : rank->facts.at("cores").get<std::vector<int>>()) cores.insert(core);
      threads += rank->facts.at("threads").get<int>();
      physical += rank->facts.at("physical_cores").get<size_t>();
      if (rank->facts.contains("energy")) energy = rank->facts.at("energy");
    }
    out.push_back({{"host", host},
                   {"cpu", members.front()->facts.at("cpu")},
                   {"ranks", members.size()},
                   {"threads", threads},
                   {"cores", cores.size()},
                   {"physical_cores", std::min(physical, cores.size())},
                   {"oversubscribed", threads > static_cast<int>(cores.size())},
                   {"energy", energy}});
  }
  return out;
}

// The sum over hosts, where all of them could be read.
Json energy_json(const Json& hosts) {
  double joules = 0;
  for (const Json& host : hosts) {
    const Json& energy = host.at("energy");
    if (energy.contains("absent"))
      return {{"absent",
               fmt::format("{}: {}",
                           host.at("host").get<std::string>(),
                           energy.at("absent").get<std::string>())}};
    joules += energy.at("joules").get<double>();
  }
  return {{"joules", joules}};
}

Json limits_json(const Job& job) {
  const StepLimits& limits = job.model.limits;
  return {{"context", limits.max_context},
          {"sequences", limits.max_sequences},
          {"rows", limits.max_rows},
          {"cache_pages", job.model.kv_blocks},
          {"kv_dtype",
           job.model.kv_dtype == KvDType::kF32   ? "f32"
           : job.model.kv_dtype == KvDType::kF16 ? "f16"
                                                 : "q8"},
          {"reproducible", job.placement.numerics == Numerics::kReproducible}};
}

Json manifest_json(const Job& job, const RecordedRun& run, const RunFigures& figures) {
  const Versions v = program_versions();
  const Json hosts = hosts_json(run.ranks);
  bool oversubscribed = false;
  int64_t left_out = 0;
  for (const Json& host : hosts) oversubscribed |= host.at("oversubscribed").get<bool>();
  for (const RecordedRank& rank : run.ranks)
    left_out = std::max(left_out, rank.facts.at("left_out").get<int64_t>());
  const EngineStats& stats = figures.stats;
  return {{"format", "glm_infer run record"},
          {"version", 1},
          {"created", utc_now()},
          {"program",
           {{"version", v.number},
            {"commit", v.commit},
            {"build", v.build},
            {"compiler", v.compiler},
            {"HDF5", v.hdf5},
            {"MPI", v.mpi},
            {"CUDA", v.cuda},
            {"NCCL", v.nccl}}},
          {"mode", figures.mode},
          {"command_line", job.options.command_line},
          {"environment", environment_json()},
          {"model", model_json(job)},
          {"shape", shape_json(job)},
          {"grid", grid_json(job)},
          {"grid_reason", job.grid_reason},
          {"limits", limits_json(job)},
          {"plan", plan_json(job)},
          {"hosts", hosts},
          {"oversubscribed", oversubscribed},
          {"uses_gpus", job.uses_gpus},
          {"passes_left_out", left_out},
          {"tokens",
           {{"prompt", stats.prefill_tokens},
            {"answer", stats.decode_tokens},
            {"prefill_seconds", stats.prefill_seconds},
            {"decode_seconds", stats.decode_seconds},
            {"first_token_seconds", stats.first_token_seconds}}},
          {"energy", energy_json(hosts)},
          {"cost", cost_json(job, figures.reports, stats)},
          {"drafts", drafts_json(job, stats)},
          {"result", figures.result}};
}

// One value of each rank.
template <class F>
void rank_numbers(RunRecordFile& file, const std::string& name, size_t n, F value) {
  std::vector<double> out;
  for (size_t r = 0; r < n; ++r) out.push_back(static_cast<double>(value(r)));
  file.numbers("ranks/" + name, out, {static_cast<int64_t>(n)});
}

template <class F>
void rank_texts(RunRecordFile& file, const std::string& name, size_t n, F value) {
  std::vector<std::string> out;
  for (size_t r = 0; r < n; ++r) out.push_back(value(r));
  file.texts("ranks/" + name, out);
}

void write_ranks(RunRecordFile& file, const RecordedRun& run, const RunFigures& figures) {
  const std::vector<RankReport>& r = figures.reports;
  const size_t n = r.size();
  rank_texts(file, "host", n, [&](size_t i) { return r[i].host; });
  rank_texts(file, "device", n, [&](size_t i) { return r[i].device; });
  rank_texts(file, "cores", n, [&](size_t i) {
    return fmt::format("{}",
                       fmt::join(run.ranks[i].facts.at("cores").get<std::vector<int>>(), ","));
  });
  rank_numbers(file, "threads", n, [&](size_t i) { return r[i].threads; });
  rank_numbers(file, "plan_bytes", n, [&](size_t i) { return r[i].plan_bytes; });
  rank_numbers(file, "peak_rss_bytes", n, [&](size_t i) { return r[i].peak_rss_bytes; });
  rank_numbers(file, "weight_bytes", n, [&](size_t i) { return r[i].weight_bytes; });
  rank_numbers(file, "device_bytes", n, [&](size_t i) { return r[i].device_bytes; });
  rank_numbers(file, "bytes_read", n, [&](size_t i) { return r[i].bytes_read; });
  rank_numbers(file, "load_seconds", n, [&](size_t i) { return r[i].load_seconds; });
  rank_numbers(file, "run_seconds", n, [&](size_t i) { return r[i].run_seconds; });
  rank_numbers(file, "comm_seconds", n, [&](size_t i) { return r[i].comm_seconds; });
  rank_numbers(file, "sent_bytes", n, [&](size_t i) { return r[i].sent_bytes; });
  rank_numbers(file, "exchanged_rows", n, [&](size_t i) { return r[i].exchange.rows_sent; });
  rank_numbers(file, "exchanged_bytes", n, [&](size_t i) { return r[i].exchange.bytes_sent; });
}

// Columns of one table, a row for each pass of each rank.
class PassTable {
 public:
  // GPUs run passes while the host goes on: their parts are not known.
  PassTable(const RecordedRun& run, const RunFigures& figures) {
    const int64_t last = last_common_step(run);
    for (size_t r = 0; r < run.ranks.size(); ++r) {
      const bool gpu = !figures.reports[r].device.starts_with("cpu");
      for (const StepLog::Pass& pass : run.ranks[r].passes)
        if (pass.rows.step <= last) add(static_cast<int64_t>(r), pass, gpu);
    }
  }

  void write(RunRecordFile& file) const {
    for (const auto& [name, values] : integers_)
      file.integers("passes/" + name, values, {static_cast<int64_t>(values.size())});
    for (const auto& [name, values] : numbers_)
      file.numbers("passes/" + name, values, {static_cast<int64_t>(values.size())});
    file.texts("passes/kinds", {"prefill", "decode", "draft"});
  }

 private:
  // Ranks may have reached their limits at different steps.
  static int64_t last_common_step(const RecordedRun& run) {
    int64_t last = std::numeric_limits<int64_t>::max();
    for (const RecordedRank& rank : run.ranks)
      if (rank.facts.at("left_out").get<int64_t>() > 0)
        last = std::min(last, rank.passes.empty() ? 0 : rank.passes.back().rows.step);
    return last;
  }

  void add(int64_t rank, const StepLog::Pass& pass, bool gpu) {
    const auto integer = [&](const char* name, int64_t value) { integers_[name].push_back(value); };
    const auto number = [&](const char* name, double value) { numbers_[name].push_back(value); };
    const auto part = [&](const char* name, double value) {
      number(name, gpu ? std::numeric_limits<double>::quiet_NaN() : value);
    };
    integer("rank", rank);
    integer("step", pass.rows.step);
    integer("run", pass.run);
    integer("kind", static_cast<int64_t>(pass.rows.kind));
    integer("rows", pass.rows.own);
    integer("step_rows", pass.rows.all);
    integer("sequences", pass.rows.sequences);
    integer("sent_bytes", pass.sent_bytes);
    integer("expert_rows", pass.expert_rows);
    number("start", pass.start);
    number("seconds", pass.seconds);
    double rest = pass.seconds - pass.wait;
    for (const double seconds : pass.parts) rest -= seconds;
    part("compute", rest);
    part("dispatch", pass.parts[StepLog::kDispatch]);
    part("combine", pass.parts[StepLog::kCombine]);
    part("all_reduce", pass.parts[StepLog::kAllReduce]);
    part("stage", pass.parts[StepLog::kStage]);
    part("plan", pass.parts[StepLog::kPlan]);
    part("wait", pass.wait);
  }

  std::map<std::string, std::vector<int64_t>> integers_;
  std::map<std::string, std::vector<double>> numbers_;
};

// Where the experts that a rank has counted stand among all.
struct CountedPart {
  explicit CountedPart(const Json& facts)
      : layers{facts.at("layers")[0].get<int64_t>(), facts.at("layers")[1].get<int64_t>()},
        first(facts.at("first_expert").get<int64_t>()),
        n(facts.at("n_experts").get<int64_t>()) {}
  size_t entries() const { return static_cast<size_t>(layers.size() * n); }
  // Adds [layers, n] to [all layers, n_experts].
  template <class T>
  void add(const T* from, int64_t* to, int64_t n_experts) const {
    for (int64_t layer = layers.begin; layer < layers.end; ++layer)
      for (int64_t e = 0; e < n; ++e) to[layer * n_experts + first + e] += *from++;
  }
  Range layers;
  int64_t first = 0;
  int64_t n = 0;
};

void write_experts(RunRecordFile& file, const Job& job, const RecordedRun& run) {
  const int64_t layers = job.config.n_layers;
  const int64_t experts = job.config.router.n_experts;
  const auto layer_entries = static_cast<size_t>(layers * experts);
  int64_t traced = kMostTraced / static_cast<int64_t>(layer_entries);
  for (const RecordedRank& rank : run.ranks) {
    const CountedPart part(rank.facts);
    if (part.entries() > 0)
      traced = std::min(traced, static_cast<int64_t>(rank.expert_trace.size() / part.entries()));
  }
  std::vector<int64_t> counts(2 * layer_entries);
  std::vector<int64_t> trace(static_cast<size_t>(traced) * layer_entries);
  for (const RecordedRank& rank : run.ranks) {
    const CountedPart part(rank.facts);
    if (part.entries() == 0) continue;
    for (size_t kind = 0; kind < 2; ++kind)
      part.add(rank.expert_counts.data() + kind * part.entries(),
               counts.data() + kind * layer_entries,
               experts);
    for (size_t i = 0; i < static_cast<size_t>(traced); ++i)
      part.add(
          rank.expert_trace.data() + i * part.entries(), trace.data() + i * layer_entries, experts);
  }
  std::vector<int64_t> steps;
  for (const StepLog::Pass& pass : run.ranks.front().passes)
    if (pass.rows.kind != StepLog::Kind::kDraft && static_cast<int64_t>(steps.size()) < traced)
      steps.push_back(pass.rows.step);
  file.integers("experts/counts", counts, {2, layers, experts});
  file.integers("experts/trace", trace, {traced, layers, experts});
  file.integers("experts/trace_step", steps, {static_cast<int64_t>(steps.size())});
}

}  // namespace

void write_record(const Job& job, const RecordedRun& run, const RunFigures& figures) {
  if (run.empty()) return;
  RunRecordFile file(*job.options.record);
  file.text("manifest",
            manifest_json(job, run, figures).dump(-1, ' ', false, Json::error_handler_t::replace));
  write_ranks(file, run, figures);
  PassTable(run, figures).write(file);
  if (job.config.is_moe() && !job.uses_gpus) write_experts(file, job, run);
  file.finish();
  std::fputs(fmt::format("record: {}\n", escaped(*job.options.record)).c_str(), stderr);
}

}  // namespace glm
