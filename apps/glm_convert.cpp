// glm_convert: a Hugging Face checkpoint, or a config alone and random numbers, to a model file.
// SPDX-License-Identifier: MIT
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>

#include "apps/program.h"
#include "apps/progress.h"
#include "core/model/convert.h"
#include "io/json.h"
#include "io/model_verify.h"

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
  std::string verify;
  bool resume = false;
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
  app.add_option("--memory-limit",
                 options.memory_limit,
                 "memory of the whole program, for example 512M or 2GiB")
      ->group("Resources")
      ->capture_default_str();
  app.add_flag("--resume",
               options.resume,
               "go on where the same conversion was killed; begins anew where there is nothing")
      ->group("Output");
  app.add_option("--verify",
                 options.verify,
                 "only read this model file and compare all its checksums and its .sha256")
      ->group("Output")
      ->type_name("OUT.h5");
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

void print_json(const OrderedJson& json) {
  fmt::print("{}\n", json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
}

OrderedJson summary_json(const Options& options,
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
  json["resumed_bytes"] = report.resumed_bytes;
  json["dtype"] = dtype_name(dtypes.body);
  json["embedding_dtype"] = dtype_name(dtypes.embedding);
  json["head_dtype"] = dtype_name(dtypes.head);
  json["has_mtp"] = report.has_mtp;
  json["seconds"] = seconds;
  json["peak_memory_bytes"] = report.peak_memory;
  json["warnings"] = report.warnings;
  return json;
}

// The one path that is written; checks what goes with what.
const std::string& output_of(const Options& options) {
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
  return out;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int convert(const Options& options) {
  const std::string& out = output_of(options);
  ConvertOptions convert;
  convert.dtypes = dtypes_of(options);
  convert.threads = options.threads;
  convert.memory_limit = parse_size(options.memory_limit, "--memory-limit");
  convert.seed = options.seed;
  convert.resume = options.resume;
  ProgressLine line(kProgram);
  bool hashing = false;
  convert.progress = [&](const ConvertProgress& progress) {
    if (interrupted != 0) fail(ExitCode::kRuntime, "interrupted; {} was not written", escaped(out));
    if (progress.hashing && !hashing) line.restart();
    hashing = progress.hashing;
    line.update({progress.done, progress.resumed, progress.total}, progress.what);
  };
  catch_interrupts();
  const auto start = std::chrono::steady_clock::now();
  const ConvertReport report = options.synthetic.empty()
                                   ? convert_checkpoint(options.source, out, convert)
                                   : convert_synthetic(options.synthetic, out, convert);
  line.finish();
  const double seconds = seconds_since(start);
  for (const std::string& warning : report.warnings)
    fmt::print(stderr, "{}: warning: {}\n", kProgram, warning);
  if (report.resumed_bytes > 0)
    fmt::print(
        "{}: {} of weights were there already\n", kProgram, bytes_text(report.resumed_bytes));
  fmt::print(
      "{}: wrote {}: {} tensors, {} parameters, {} of weights in {:.1f} s ({:.0f} MB/s), {} of "
      "memory\n",
      kProgram,
      escaped(out),
      report.tensors,
      count_text(report.parameters),
      bytes_text(report.bytes),
      seconds,
      static_cast<double>(report.bytes - report.resumed_bytes) / 1e6 / seconds,
      bytes_text(report.peak_memory));
  if (options.json) print_json(summary_json(options, out, report, seconds));
  return 0;
}

int verify(const Options& options) {
  if (!options.source.empty() || !options.synthetic.empty() || options.resume)
    fail(ExitCode::kUsage, "--verify takes nothing but its file; try --help");
  ProgressLine line(kProgram);
  catch_interrupts();
  const auto start = std::chrono::steady_clock::now();
  const VerifyReport report =
      verify_model_file(options.verify, options.threads, [&](int64_t done, int64_t total) {
        if (interrupted != 0) fail(ExitCode::kRuntime, "interrupted");
        line.update({done, 0, total}, options.verify);
      });
  line.finish();
  const double seconds = seconds_since(start);
  fmt::print("{}: {} is whole: {} tensors, {} blocks, {} of weights agree with their checksums{}\n",
             kProgram,
             escaped(options.verify),
             report.tensors,
             report.blocks,
             bytes_text(report.weight_bytes),
             report.manifest ? ", and the file with its .sha256" : "; there is no .sha256");
  if (!options.json) return 0;
  OrderedJson json;
  json["program"] = kProgram;
  json["verified"] = escaped(options.verify, 4096);
  json["tensors"] = report.tensors;
  json["blocks"] = report.blocks;
  json["weight_bytes"] = report.weight_bytes;
  json["file_bytes"] = report.file_bytes;
  json["manifest"] = report.manifest;
  json["seconds"] = seconds;
  print_json(json);
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
  return options.verify.empty() ? convert(options) : verify(options);
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  return glm::run_program(glm::kProgram, [&] { return glm::run(argc, argv); });
}
