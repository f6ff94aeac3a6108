// SPDX-License-Identifier: MIT
#include "tests/support/model_run.h"

#include <algorithm>
#include <mutex>

#include <unistd.h>

#include "core/model/model_source.h"
#include "io/json.h"

namespace glm::testing_support {
namespace {

StepLimits step_limits(const RunOptions& options, size_t n_requests) {
  StepLimits limits;
  limits.max_context = options.context;
  limits.max_rows = options.max_rows;
  limits.max_sequences = options.lead || options.drive
                             ? options.max_sequences
                             : std::min(options.max_sequences, static_cast<int64_t>(n_requests));
  limits.max_logits = options.max_rows;
  return limits;
}

ModelOptions model_options_of(const RunOptions& options, size_t n_requests) {
  ModelOptions out;
  out.limits = step_limits(options, n_requests);
  out.kv_dtype = options.kv_dtype;
  out.kv_blocks = options.kv_blocks > 0 ? options.kv_blocks
                                        : out.limits.max_sequences * out.limits.max_blocks();
  out.exchange = options.exchange;
  return out;
}

Placement placement_of(const ModelConfig& config,
                       const ModelIndex& index,
                       const RunOptions& options,
                       int rank) {
  const DType body = stored_types(index).at("layers.0.attention.qkv").dtype;
  const bool mtp = options.drafts != DraftMode::kOff;
  return divide_model(config, default_dtypes(body), options.shape, options.capacities, mtp)
      .placement(rank, options.numerics);
}

DeviceLink link_of(const RunOptions& options, Device& device) {
  DeviceLink link;
  if (!options.nccl) return link;
  link.device = &device;
  link.nccl = *options.nccl;
  return link;
}

// One rank from the open file to the end of its requests.
void run_rank(Communicator& world,
              const ModelIndex& index,
              const RunOptions& options,
              const std::vector<Request>& requests,
              RunResult& result,
              std::mutex& lock) {
  const ModelConfig config = parse_config(index.texts.config, index.path);
  StepContext where;
  const std::unique_ptr<Device> device =
      options.device_of_rank ? options.device_of_rank(world.rank()) : make_cpu_device();
  ProcessGrid grid(world, options.shape, link_of(options, *device));
  const Placement placement = placement_of(config, index, options, world.rank());
  const ModelOptions model_options = model_options_of(options, requests.size());
  const OpsLimits ops_room = ops_limits(config, options.shape, model_options.limits);
  const std::unique_ptr<Ops> ops = options.ops_of_rank
                                       ? options.ops_of_rank(world.rank(), *device, ops_room)
                                       : make_ops(options.ops, *device, options.threads, ops_room);
  const Weights weights(config, index, placement, *device, true);
  const std::unique_ptr<Model> model =
      make_model({config, placement, grid, *device, *ops, weights, where}, model_options);
  Engine engine(
      grid, *model, *device, model_options.limits, model_options.kv_blocks, config.vocab, where);
  engine.use_drafts(options.drafts);
  std::vector<int32_t> ids;
  if (world.rank() == 0)
    for (const Request& request : requests) ids.push_back(engine.submit(request));
  EngineListener listener;
  std::vector<std::vector<float>> logits(requests.size());
  listener.on_logits = [&](int32_t id, int64_t, std::span<const float> row) {
    auto& target = logits[static_cast<size_t>(id)];
    target.insert(target.end(), row.begin(), row.end());
  };
  if (options.drive) {
    options.drive(engine, world);
  } else if (!options.lead) {
    engine.run(listener);
  } else if (world.rank() == 0) {
    options.lead(engine);
    engine.stop();
  } else {
    engine.follow();
  }

  const std::lock_guard<std::mutex> guard(lock);
  const auto rank = static_cast<size_t>(world.rank());
  result.exchange[rank] = model->exchange_counters();
  result.weight_bytes[rank] = weights.bytes();
  result.bytes_read[rank] = weights.bytes_read();
  if (rank != 0) return;
  result.preempted = engine.scheduler().n_preempted();
  result.logits = std::move(logits);
  result.stats = engine.stats();
  for (const int32_t id : ids) {
    const Sequence& sequence = engine.sequence(id);
    result.answers.emplace_back(
        sequence.tokens.begin() + static_cast<int64_t>(sequence.request.prompt.size()),
        sequence.tokens.end());
  }
}

}  // namespace

RunResult run_on_threads(const std::filesystem::path& model,
                         const RunOptions& options,
                         const std::vector<Request>& requests) {
  const ModelIndex index = read_model_index(model);
  RunResult result;
  const auto world = static_cast<size_t>(options.shape.world());
  result.exchange.resize(world);
  result.weight_bytes.resize(world);
  result.bytes_read.resize(world);
  std::mutex lock;
  CommOptions comm;
  comm.timeout_seconds = options.timeout_seconds;
  run_thread_ranks(options.shape.world(), comm, [&](Communicator& ranks) {
    run_rank(ranks, index, options, requests, result, lock);
  });
  return result;
}

std::filesystem::path converted(const std::filesystem::path& folder, DType dtype) {
  std::filesystem::path name = folder;
  const std::filesystem::path out =
      std::filesystem::path(GLM_TEST_TMP) /
      fmt::format("{}.{}.{}.h5", name.filename().string(), dtype_name(dtype), getpid());
  if (std::filesystem::exists(out)) return out;
  ConvertOptions options;
  options.dtypes = default_dtypes(dtype);
  options.threads = 2;
  convert_checkpoint(folder, out, options);
  return out;
}

Golden read_golden(const std::filesystem::path& folder) {
  const std::string path = (folder / "expected.json").string();
  const Json json =
      parse_json(read_file(path, 1 << 20, ExitCode::kRuntime), path, ExitCode::kRuntime);
  Golden golden;
  golden.prompt = json.at("prompt").get<std::vector<int32_t>>();
  golden.greedy = json.at("greedy").get<std::vector<int32_t>>();
  golden.range = json.at("range").get<double>();
  return golden;
}

Request golden_request(const Golden& golden) {
  Request request;
  request.prompt = golden.prompt;
  request.max_tokens = static_cast<int64_t>(golden.greedy.size());
  request.sampling.temperature = 0;
  request.all_logits = true;
  return request;
}

ChatPrompts::ChatPrompts(const std::filesystem::path& folder)
    : texts_(read_folder_texts(folder)),
      tokenizer_(texts_.tokenizer, folder.string()),
      template_(texts_.chat_template, folder.string()) {}

std::vector<int32_t> ChatPrompts::ids(const std::string& message) const {
  RenderInput input;
  input.messages.push_back({{"role", "user"}, {"content", message}});
  return tokenizer_.encode(template_.render(input));
}

std::vector<GridShape> legal_grids(int world, bool is_moe) {
  std::vector<GridShape> grids;
  for (int data = 1; data <= world; ++data)
    for (int pipeline = 1; pipeline <= world; ++pipeline) {
      if (world % (data * pipeline) != 0) continue;
      const int tensor = world / (data * pipeline);
      for (int expert = 1; expert <= (is_moe ? data * tensor : 1); ++expert) {
        const bool within = tensor % expert == 0;
        const bool across = expert % tensor == 0 && data % (expert / tensor) == 0;
        if (within || across) grids.push_back({data, pipeline, tensor, expert});
      }
    }
  return grids;
}

}  // namespace glm::testing_support
