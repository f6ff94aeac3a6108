// glm_convert: a Hugging Face checkpoint, or a config alone and random numbers, to a model file.
// SPDX-License-Identifier: MIT
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>

#include "apps/program.h"
#include "core/model/convert.h"
#include "io/json.h"

namespace glm {
namespace {

constexpr const char* kProgram = "glm_convert";
constexpr int kMaxThreads = 1024;

volatile std::sig_atomic_t interrupted = 0;

void note_interrupt(int) { interrupted = 1; }

// The first interrupt lets the converter clean up, a second one kills.
void catch_interrupts() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    action.sa_handler = note_interrupt;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(signal, &action, nullptr);
  }
}

struct Options {
  std::string source;
  std::string out;
  std::string dtype = "q40";
  std::string embedding_dtype;
  std::string head_dtype;
  std::string memory_limit = "1GiB";
  std::string synthetic;
  int threads = allowed_cores();
  uint64_t seed = 0;
  bool json = false;
};

void declare_options(CLI::App& app, Options& options) {
  app.set_version_flag("--version", version_text(kProgram));
  app.add_option("HF_DIR", options.source, "folder of the checkpoint; not with --synthetic");
  app.add_option("OUT", options.out, "model file to write, for example air.h5");
  app.add_option("--dtype", options.dtype, "matrices: f32, bf16, f16, q80 or q40")
      ->group("Weights")
      ->capture_default_str();
  app.add_option("--embedding-dtype",
                 options.embedding_dtype,
                 "embedding (default: q80 with --dtype q40, else as --dtype)")
      ->group("Weights");
  app.add_option("--head-dtype",
                 options.head_dtype,
                 "output head (default: as --embedding-dtype's default); also of a tied matrix")
      ->group("Weights");
  app.add_option("--synthetic",
                 options.synthetic,
                 "random weights in the shape of this config.json, without a checkpoint")
      ->group("Synthetic models")
      ->type_name("CONFIG.json");
  app.add_option("--seed", options.seed, "of the random weights")
      ->group("Synthetic models")
      ->check(integer_in(0, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads (default: the allowed cores)")
      ->group("Resources")
      ->check(integer_in(1, kMaxThreads))
      ->capture_default_str();
  app.add_option("--memory-limit", options.memory_limit, "buffers, for example 512M or 2GiB")
      ->group("Resources")
      ->capture_default_str();
  app.add_flag("--json", options.json, "print a summary as the last line, one JSON object")
      ->group("Output");
}

DTypeChoice dtypes_of(const Options& options) {
  DTypeChoice choice = default_dtypes(parse_weight_dtype(options.dtype, "--dtype"));
  if (!options.embedding_dtype.empty())
    choice.embedding = parse_weight_dtype(options.embedding_dtype, "--embedding-dtype");
  if (!options.head_dtype.empty())
    choice.head = parse_weight_dtype(options.head_dtype, "--head-dtype");
  return choice;
}

// An older model file is replaced; any other file was not meant.
void check_output(const std::filesystem::path& out) {
  std::error_code error;
  const auto status = std::filesystem::status(out, error);
  if (!std::filesystem::exists(status)) return;
  if (!std::filesystem::is_regular_file(status))
    fail(ExitCode::kUsage, "{}: exists and is not a file", escaped(out.string()));
  std::ifstream file(out, std::ios::binary);
  char magic[4] = {};
  file.read(magic, sizeof(magic));
  if (file.gcount() != 0 && std::string_view(magic, sizeof(magic)) != "\x89HDF")
    fail(ExitCode::kUsage,
         "{}: exists and is not a model file; remove it first",
         escaped(out.string()));
}

std::string summary_json(const Options& options,
                         const std::string& out,
                         const ConvertReport& report,
                         double seconds) {
  const DTypeChoice dtypes = dtypes_of(options);
  OrderedJson json;
  json["program"] = kProgram;
  json["output"] = escaped(out, 4096);
  json["tensors"] = report.tensors;
  json["parameters"] = report.parameters;
  json["weight_bytes"] = report.bytes;
  json["dtype"] = dtype_name(dtypes.body);
  json["embedding_dtype"] = dtype_name(dtypes.embedding);
  json["head_dtype"] = dtype_name(dtypes.head);
  json["has_mtp"] = report.has_mtp;
  json["seconds"] = seconds;
  json["warnings"] = report.warnings;
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

int convert(const Options& options) {
  const bool synthetic = !options.synthetic.empty();
  // The only path of a synthetic model is its output.
  const std::string& out = synthetic ? options.source : options.out;
  if (synthetic && !options.out.empty())
    fail(ExitCode::kUsage, "--synthetic CONFIG.json takes one path, OUT; try --help");
  if (out.empty())
    fail(ExitCode::kUsage,
         "{}; try --help",
         synthetic ? "OUT, the model file to write, is missing"
                   : "two paths are needed: HF_DIR and OUT");
  if (synthetic && !std::filesystem::exists(options.synthetic))
    fail(ExitCode::kUsage, "--synthetic: {}: no such file", escaped(options.synthetic));
  check_output(out);
  ConvertOptions convert;
  convert.dtypes = dtypes_of(options);
  convert.threads = options.threads;
  convert.memory_limit = parse_size(options.memory_limit, "--memory-limit");
  convert.seed = options.seed;
  ProgressLine line(kProgram);
  convert.progress = [&](int64_t done, int64_t total, const std::string& tensor) {
    if (interrupted != 0) fail(ExitCode::kRuntime, "interrupted; {} was not written", escaped(out));
    line.update(done, total, tensor);
  };
  catch_interrupts();
  const auto start = std::chrono::steady_clock::now();
  const ConvertReport report = synthetic ? convert_synthetic(options.synthetic, out, convert)
                                         : convert_checkpoint(options.source, out, convert);
  line.finish();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  for (const std::string& warning : report.warnings)
    fmt::print(stderr, "{}: warning: {}\n", kProgram, warning);
  fmt::print("{}: wrote {}: {} tensors, {} parameters, {} of weights in {:.1f} s ({:.0f} MB/s)\n",
             kProgram,
             escaped(out),
             report.tensors,
             count_text(report.parameters),
             bytes_text(report.bytes),
             seconds.count(),
             static_cast<double>(report.bytes) / 1e6 / seconds.count());
  if (options.json) fmt::print("{}\n", summary_json(options, out, report, seconds.count()));
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Converts a Hugging Face checkpoint of a GLM, Llama or Qwen 3 model to the model file of "
      "glm_infer.",
      kProgram);
  Options options;
  declare_options(app, options);
  std::string text;
  if (!parse_options(app, argc, argv, text)) {
    fmt::print("{}\n", text);
    return 0;
  }
  return convert(options);
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  return glm::run_program(glm::kProgram, [&] { return glm::run(argc, argv); });
}
