// glm_plan: memory and speed of a model on a machine before there is a job, the best grids for a
// workload, and the batch script. Runs on a login node: no MPI, no GPU, no weights. With --measure
// it describes the host it runs on. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "apps/infer_prediction.h"
#include "apps/launch.h"
#include "apps/option_choice.h"
#include "apps/plan_measure.h"
#include "apps/plan_search.h"
#include "apps/program.h"
#include "parallel/mpi_launch.h"

namespace glm {
namespace {

constexpr const char* kProgram = "glm_plan";
constexpr int64_t kMostTokens = int64_t{1} << 31;

struct Command {
  PlanOptions plan;
  MeasureOptions measure;
  bool measures = false;
  std::string dtypes = "q40";
  std::optional<std::string> machine_out;
  std::optional<std::string> show_machine;
};

const std::vector<std::pair<std::string, DType>>& weight_dtypes() {
  static const std::vector<std::pair<std::string, DType>> dtypes = {{"f32", DType::kF32},
                                                                    {"bf16", DType::kBF16},
                                                                    {"f16", DType::kF16},
                                                                    {"q80", DType::kQ80},
                                                                    {"q40", DType::kQ40}};
  return dtypes;
}

void add_model_options(CLI::App& app, PlanOptions& o) {
  const auto group = [](CLI::Option* option) { return option->group("Model"); };
  group(app.add_option("--model",
                       o.model,
                       "Model file, Hugging Face folder or config.json; weights are not read")
            ->type_name("PATH"));
  group(add_choice<DType>(app,
                          "--dtype",
                          o.dtype,
                          weight_dtypes(),
                          "Of its matrices, unless it is a file (default q40)"));
  group(add_choice<DType>(app,
                          "--embedding-dtype",
                          o.embedding_dtype,
                          weight_dtypes(),
                          "The embedding (default: q80 with --dtype q40, else as --dtype)"));
  group(add_choice<DType>(
      app, "--head-dtype", o.head_dtype, weight_dtypes(), "The output head (default: likewise)"));
  group(add_choice<KvDType>(app,
                            "--kv-dtype",
                            o.kv_dtype,
                            {{"f32", KvDType::kF32}, {"f16", KvDType::kF16}, {"q8", KvDType::kQ8}},
                            "The cache (default: f32 for f32 models, else f16)"));
}

void add_workload_options(CLI::App& app, PlanOptions& o) {
  const auto tokens = [&](const char* name, int64_t& target, const char* text) {
    app.add_option(name, target, text)
        ->check(integer_in(1, kMostTokens))
        ->type_name("N")
        ->capture_default_str()
        ->group("Workload");
  };
  tokens("--prompt-tokens", o.prompt_tokens, "Of each prompt");
  tokens("--max-tokens", o.max_tokens, "New tokens of each answer");
  app.add_option("--sequences", o.sequences, "At once")
      ->check(integer_in(1, 1 << 16))
      ->type_name("N")
      ->capture_default_str()
      ->group("Workload");
  app.add_option(
         "--context", o.context, "Positions of each sequence (default 8192, or what it needs)")
      ->check(integer_in(1, kMostTokens))
      ->type_name("N")
      ->group("Workload");
}

void add_machine_options(CLI::App& app, PlanOptions& o) {
  const auto group = [](CLI::Option* option) { return option->group("Machine and ranks"); };
  std::vector<std::string> names;
  for (const auto& [name, text] : bundled_machines()) names.push_back(name);
  group(app.add_option("--machine",
                       o.machine,
                       fmt::format("File of a description, or one of {} (default: what --measure "
                                   "has found on this host)",
                                   fmt::join(names, ", ")))
            ->type_name("FILE|NAME"));
  const auto count = [&](const char* name, std::optional<int>& target, const char* text) {
    group(app.add_option(name, target, text)->check(integer_in(1, 1 << 16))->type_name("N"));
  };
  count("--nodes", o.nodes, "Nodes (default: as described)");
  count("--ranks-per-node", o.ranks_per_node, "Ranks, or GPUs, of each (default: as described)");
  group(app.add_option(
               "--memory-fraction", o.memory_fraction, "Part of the memory that a plan may use")
            ->check(number_in(0, 1, true))
            ->type_name("F")
            ->capture_default_str());
  count("--data", o.grid.data, "Only grids with so many replicas");
  count("--pipeline", o.grid.pipeline, "... stages");
  count("--tensor", o.grid.tensor, "... ranks that split each matrix");
  count("--expert", o.grid.expert, "... shares of the experts");
  group(add_choice<ExchangeKind>(app,
                                 "--expert-exchange",
                                 o.exchange,
                                 {{"auto", ExchangeKind::kAuto},
                                  {"reduce", ExchangeKind::kReduce},
                                  {"alltoall", ExchangeKind::kAllToAll}},
                                 "How rows reach their experts (default auto)"));
  group(app.add_flag("--reproducible", o.reproducible, "Plan for glm_infer --reproducible"));
}

void add_measure_options(CLI::App& app, Command& command) {
  const auto group = [](CLI::Option* option) { return option->group("Measuring this host"); };
  auto* measure =
      group(app.add_flag("--measure",
                         command.measures,
                         "Measure this host instead of planning; under mpirun what lies "
                         "between ranks as well"));
  group(app.add_option("--measure-dtypes", command.dtypes, "Dtypes of weights, with commas")
            ->type_name("DTYPE,...")
            ->needs(measure)
            ->capture_default_str());
  group(app.add_option("--measure-seconds", command.measure.seconds, "For each of the measurements")
            ->check(number_in(0, 3600))
            ->type_name("S")
            ->needs(measure)
            ->capture_default_str());
  group(app.add_option("--machine-out",
                       command.machine_out,
                       "Where the description goes (default: the cache that glm_infer reads)")
            ->type_name("FILE")
            ->needs(measure));
}

void declare_options(CLI::App& app, Command& command) {
  app.set_version_flag("--version", version_text(kProgram));
  add_model_options(app, command.plan);
  add_workload_options(app, command.plan);
  add_machine_options(app, command.plan);
  add_measure_options(app, command);
  const auto group = [](CLI::Option* option) { return option->group("Reports"); };
  group(app.add_option("--show", command.plan.show, "Grids that are listed")
            ->check(integer_in(1, 1000))
            ->type_name("N")
            ->capture_default_str());
  group(app.add_flag("--json", command.plan.json, "One JSON object on stdout"));
  group(app.add_option("--sbatch", command.plan.sbatch, "Write the batch script of the best grid")
            ->type_name("FILE"));
  group(app.add_option("--show-machine",
                       command.show_machine,
                       "Print a description, to start one's own from, and nothing else")
            ->type_name("FILE|NAME"));
}

std::vector<DType> parse_dtypes(const std::string& text) {
  std::vector<DType> out;
  std::istringstream in(text);
  for (std::string name; std::getline(in, name, ',');)
    out.push_back(parse_weight_dtype(name, "--measure-dtypes"));
  if (out.empty()) fail(ExitCode::kUsage, "--measure-dtypes: no dtype is named");
  return out;
}

// What was measured, or the measured description's file for plans; judged early.
std::filesystem::path description_path(const Command& command) {
  const std::filesystem::path path =
      command.machine_out ? std::filesystem::path(*command.machine_out) : machine_cache_path();
  if (path.empty())
    fail(ExitCode::kUsage, "no home folder for the description; name a file with --machine-out");
  return path;
}

void write_file(const std::filesystem::path& path, const std::string& text, const char* option) {
  std::error_code error;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  // Written whole or not at all: other jobs may be reading it.
  const std::filesystem::path partial = path.string() + ".partial";
  std::ofstream out(partial, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (out) std::filesystem::rename(partial, path, error);
  if (!out || error) {
    std::filesystem::remove(partial, error);
    fail(ExitCode::kUsage, "{} {}: cannot be written", option, escaped(path.string()));
  }
}

void report_machine(const Command& command, const MachineSpec& spec) {
  const std::string text = machine_json(spec).dump(2) + "\n";
  const std::filesystem::path path = description_path(command);
  write_file(path, text, "--machine-out");
  if (command.plan.json) {
    write_out(machine_json(spec).dump() + "\n");
    return;
  }
  write_out(text);
  std::fprintf(stderr, "written to %s\n", escaped(path.string(), 4096).c_str());
  if (spec.figures != "measured")
    std::fputs("what lies between ranks is assumed; mpirun -np N glm_plan --measure measures it\n",
               stderr);
}

int run_measure(const Command& command, int argc, char** argv) {
  if (started_alone())
    return run_program(kProgram, [&] {
      report_machine(command, measure_host(command.measure));
      return 0;
    });
  return run_ranks(argc, argv, kProgram, {}, 300, [&](MpiSession& session) {
    MachineSpec spec;
    spec.cores_per_node = host_cores();
    // The others sleep in between; each rank's own threads would be in the way.
    if (session.world().rank() == 0) spec = measure_host(command.measure);
    session.world().barrier();
    measure_links(session, spec);
    session.on_root([&] { report_machine(command, spec); });
    return 0;
  });
}

int run_plan(const Command& command) {
  PlanOptions options = command.plan;
  if (options.model.empty())
    fail(ExitCode::kUsage, "--model is missing: a model file, a folder or a config.json");
  if (options.machine.empty()) {
    std::error_code error;
    const std::filesystem::path path = machine_cache_path();
    if (path.empty() || !std::filesystem::is_regular_file(path, error))
      fail(ExitCode::kUsage,
           "--machine is missing: name a description (--help lists those that are there), or "
           "describe this host with glm_plan --measure");
    options.machine = path.string();
  }
  const PlanResult result = search_plan(options);
  if (options.sbatch && result.fits())
    write_file(*options.sbatch, sbatch_text(options, result), "--sbatch");
  if (options.json)
    write_out(plan_report_json(options, result).dump() + "\n");
  else
    write_out(plan_report_text(options, result));
  if (!result.fits()) {
    const std::string advice = fmt::format("{}", fmt::join(result.advice, "; "));
    fail(ExitCode::kResources,
         "no grid of {} rank{} fits: rank {} needs {:.2f} GB; {}",
         result.ranks.count,
         result.ranks.count == 1 ? "" : "s",
         result.grids.front().limiting_rank,
         gigabytes(result.grids.front().largest_rank_bytes),
         advice.empty() ? "use a machine with more memory, a smaller dtype or a smaller --context"
                        : "these would fit: " + advice);
  }
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app("Plans a job: memory, speed and the best grids of a model on a machine.", kProgram);
  Command command;
  std::string text;
  int code = 0;
  bool runs = false;
  code = run_program(kProgram, [&] {
    declare_options(app, command);
    if (!parse_options(app, argc, argv, text)) {
      write_out(text + "\n");
      return 0;
    }
    if (command.measures) {
      description_path(command);
      command.measure.dtypes = parse_dtypes(command.dtypes);
      runs = true;
      return 0;
    }
    if (command.show_machine) {
      PlanOptions options;
      options.machine = *command.show_machine;
      write_out(machine_json(open_machine(options)).dump(2) + "\n");
      return 0;
    }
    return run_plan(command);
  });
  return runs ? run_measure(command, argc, argv) : code;
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) { return glm::run(argc, argv); }
