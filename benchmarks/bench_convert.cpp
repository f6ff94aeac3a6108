// How long a conversion takes beside reading and writing its bytes alone, and how much memory it
// takes. Writes a random checkpoint of the wanted size, then times in turn (1) reading it and
// writing and syncing a file as large as the result, (2) glm_convert. SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/model/convert.h"
#include "io/json.h"
#include "io/output_file.h"
#include "io/raw_file.h"

namespace glm {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kPiece = int64_t{8} << 20;
constexpr int64_t kShardBytes = int64_t{1} << 30;

struct Arguments {
  fs::path convert;  // the program
  fs::path folder;   // with room for checkpoint and results
  int64_t bytes = 0;
  int rounds = 3;
  std::vector<std::string> options;  // for glm_convert
};

// A small relative of GLM-4.5-Air with about 201 MB of bf16 weights in a layer.
Json config_of(int64_t bytes) {
  const int64_t layers = std::max<int64_t>(2, bytes / 201'000'000 + 1);  // the first one is dense
  return {{"model_type", "glm4_moe"},
          {"architectures", {"Glm4MoeForCausalLM"}},
          {"hidden_size", 1024},
          {"intermediate_size", 2048},
          {"moe_intermediate_size", 512},
          {"num_hidden_layers", layers},
          {"num_attention_heads", 16},
          {"num_key_value_heads", 2},
          {"head_dim", 64},
          {"n_routed_experts", 64},
          {"n_shared_experts", 1},
          {"num_experts_per_tok", 8},
          {"first_k_dense_replace", 1},
          {"n_group", 1},
          {"topk_group", 1},
          {"norm_topk_prob", true},
          {"routed_scaling_factor", 1.0},
          {"use_qk_norm", false},
          {"attention_bias", true},
          {"tie_word_embeddings", false},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 1e6},
          {"partial_rotary_factor", 0.5},
          {"max_position_embeddings", 4096},
          {"vocab_size", 8192},
          {"torch_dtype", "bfloat16"}};
}

// bf16 numbers of magnitude 0.004 to 0.06, with all mantissas.
std::vector<uint16_t> random_values(size_t count) {
  std::vector<uint16_t> values(count);
  uint64_t state = 1;
  for (uint16_t& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const auto bits = static_cast<uint16_t>(state >> 40);
    value = static_cast<uint16_t>((bits & 0x81FFu) | 0x3C00u);
  }
  return values;
}

struct Source {
  std::string name;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

void write_shard(const fs::path& path, const std::vector<Source>& sources) {
  Json header = Json::object();
  int64_t at = 0;
  for (const Source& source : sources) {
    header[source.name] = {
        {"dtype", "BF16"}, {"shape", source.shape}, {"data_offsets", {at, at + source.bytes}}};
    at += source.bytes;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  static const std::vector<uint16_t> values = random_values(1 << 22);
  const auto all = static_cast<int64_t>(values.size() * sizeof(uint16_t));
  for (int64_t left = at; left > 0; left -= all)
    file.write(reinterpret_cast<const char*>(values.data()), std::min(left, all));
  if (!file) fail(ExitCode::kResources, "{}: cannot write", path.string());
}

void write_checkpoint(const fs::path& folder, int64_t bytes) {
  fs::create_directories(folder);
  const std::string config = config_of(bytes).dump();
  std::ofstream(folder / "config.json") << config;
  std::vector<std::vector<Source>> shards(1);
  int64_t in_shard = 0;
  Json map = Json::object();
  const auto name_of = [](size_t shard) { return fmt::format("model-{:05}.safetensors", shard); };
  for (const TensorSpec& spec : tensor_specs(parse_config(config, "config.json"), false))
    for (const SourcePart& part : spec.sources) {
      Source source = {part.name, {part.rows}, 2 * part.rows};
      if (spec.dims.size() > 1) {
        source.shape.push_back(spec.cols());
        source.bytes *= spec.cols();
      }
      if (in_shard + source.bytes > kShardBytes) {
        shards.emplace_back();
        in_shard = 0;
      }
      in_shard += source.bytes;
      map[source.name] = name_of(shards.size() - 1);
      shards.back().push_back(std::move(source));
    }
  for (size_t i = 0; i < shards.size(); ++i) write_shard(folder / name_of(i), shards[i]);
  std::ofstream(folder / "model.safetensors.index.json") << Json{{"weight_map", map}}.dump();
}

std::vector<fs::path> shards_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// The same start for both: nothing of these files in memory.
void forget(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    ::fsync(fd);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
}

// Reads every shard and writes `bytes` in the proportion of what was read.
void copy_alone(const fs::path& folder, const fs::path& out, int64_t in_bytes, int64_t bytes) {
  OutputFile output;
  output.create(out.string());
  output.reserve(bytes);
  std::vector<char> buffer(static_cast<size_t>(kPiece));
  int64_t read = 0;
  int64_t written = 0;
  for (const fs::path& path : shards_of(folder)) {
    const RawFile file(path, ExitCode::kRuntime);
    for (int64_t at = 0; at < file.size(); at += kPiece) {
      read += file.read_some(at, buffer.data(), kPiece);
      const auto due = static_cast<int64_t>(
          static_cast<double>(read) / static_cast<double>(in_bytes) * static_cast<double>(bytes));
      while (written < due) {
        const int64_t n = std::min(kPiece, due - written);
        output.write(written, buffer.data(), n);
        written += n;
      }
    }
  }
  output.sync();
}

struct Run {
  double seconds = 0;
  int64_t peak_bytes = 0;
};

Run timed(const std::function<void()>& body) {
  const auto start = Clock::now();
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  struct rusage usage = {};
  if (::wait4(child, &status, 0, &usage) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    fail(ExitCode::kRuntime, "a part of the benchmark failed");
  return {std::chrono::duration<double>(Clock::now() - start).count(),
          int64_t{usage.ru_maxrss} * 1024};
}

void exec_convert(const Arguments& arguments, const fs::path& in, const fs::path& out) {
  std::vector<std::string> words = {arguments.convert.string(), in.string(), out.string()};
  words.insert(words.end(), arguments.options.begin(), arguments.options.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  ::dup2(null, STDOUT_FILENO);
  ::dup2(null, STDERR_FILENO);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

int run(const Arguments& arguments) {
  const fs::path in = arguments.folder / "in";
  const fs::path out = arguments.folder / "out";
  fs::create_directories(out);
  write_checkpoint(in, arguments.bytes);
  int64_t in_bytes = 0;
  for (const fs::path& path : shards_of(in)) in_bytes += static_cast<int64_t>(fs::file_size(path));
  const auto convert = [&] { exec_convert(arguments, in, out / "m.h5"); };
  timed(convert);  // how large the result is
  const auto out_bytes = static_cast<int64_t>(fs::file_size(out / "m.h5"));
  std::vector<double> shares;
  for (int round = 0; round < arguments.rounds; ++round) {
    for (const auto& entry : fs::directory_iterator(out)) fs::remove(entry.path());
    forget(in);
    const Run alone = timed([&] { copy_alone(in, out / "copy", in_bytes, out_bytes); });
    fs::remove(out / "copy");
    forget(in);
    const Run converted = timed(convert);
    shares.push_back(alone.seconds / converted.seconds);
    fmt::print(
        "{{\"in_bytes\": {}, \"out_bytes\": {}, \"alone_seconds\": {:.2f}, "
        "\"convert_seconds\": {:.2f}, \"share\": {:.2f}, \"peak_bytes\": {}}}\n",
        in_bytes,
        out_bytes,
        alone.seconds,
        converted.seconds,
        shares.back(),
        converted.peak_bytes);
    std::fflush(stdout);
  }
  std::sort(shares.begin(), shares.end());
  fmt::print("median share of the speed of the bytes alone: {:.0f} %\n",
             100.0 * shares[shares.size() / 2]);
  fs::remove_all(in);
  fs::remove_all(out);
  return 0;
}

}  // namespace
}  // namespace glm

int main(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr, "usage: bench_convert GLM_CONVERT FOLDER MEGABYTES ROUNDS [OPTION...]\n");
    return 2;
  }
  try {
    return glm::run({argv[1],
                     argv[2],
                     std::stoll(argv[3]) * 1'000'000,
                     std::stoi(argv[4]),
                     {argv + 5, argv + argc}});
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_convert: error: {}\n", error.what());
    return 1;
  }
}
