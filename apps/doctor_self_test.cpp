// SPDX-License-Identifier: MIT
#include "apps/doctor_self_test.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>

#include "apps/doctor_checks.h"
#include "apps/infer_device.h"
#include "apps/infer_run.h"
#include "core/base/rng.h"
#include "core/model/grid_planner.h"

namespace glm {
namespace {

// Dense and mixture layers, grouped heads, a shared expert; nothing that divides evenly by three.
constexpr const char* kConfig = R"({"architectures": ["Glm4MoeForCausalLM"],
 "model_type": "glm4_moe", "attention_bias": true, "eos_token_id": [1], "first_k_dense_replace": 1,
 "head_dim": 16, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
 "max_position_embeddings": 128, "moe_intermediate_size": 64, "n_group": 1,
 "n_routed_experts": 10, "n_shared_experts": 1, "norm_topk_prob": true,
 "num_attention_heads": 8, "num_experts_per_tok": 3, "num_hidden_layers": 4,
 "num_key_value_heads": 4, "num_nextn_predict_layers": 0, "pad_token_id": 0,
 "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05, "rope_theta": 10000,
 "routed_scaling_factor": 1.0, "tie_word_embeddings": false, "topk_group": 1,
 "torch_dtype": "float32", "use_qk_norm": true, "vocab_size": 320})";
constexpr int64_t kLayers = 4;
constexpr int64_t kVocab = 320;
constexpr uint64_t kSeed = 20;
constexpr int64_t kContext = 64;
constexpr int64_t kPromptTokens = 24;
constexpr int64_t kAnswerTokens = 4;
constexpr int kPrompts = 2;        // different ones
constexpr int kMostRequests = 16;  // of a layout: one for each data rank, at least all prompts

// By default f32, whose deviations are bounded; and quantised, where all bits must be the same.
struct Mode {
  const char* name;
  DType dtype;
  bool reproducible;
};
constexpr std::array kModes = {Mode{"f32", DType::kF32, false},
                               Mode{"q40 --reproducible", DType::kQ40, true}};

using Logits = std::vector<std::vector<float>>;  // of each request: all its positions

InferOptions test_options(const InferOptions& given, const Mode& mode) {
  InferOptions o;
  o.dtype = mode.dtype;
  o.reproducible = mode.reproducible;
  o.context = kContext;
  o.dump_logits = std::string();  // room for the logits of all positions
  o.threads = given.threads;
  o.ops = given.ops;
  o.device = given.device;
  o.allow_shared_gpu = given.allow_shared_gpu;
  o.nccl = given.nccl;
  o.memory_fraction = given.memory_fraction;
  o.timeout = given.timeout;
  return o;
}

ModelSource test_source(const Mode& mode) {
  ModelSource source;
  source.path = "the model of the self-test";
  source.texts.config = kConfig;
  source.synthetic = {kSeed, default_dtypes(mode.dtype)};
  return source;
}

Request test_request(int prompt) {
  Request request;
  const uint64_t key = stream_key(kSeed, fmt::format("prompt {}", prompt));
  for (int64_t i = 0; i < kPromptTokens; ++i)
    request.prompt.push_back(
        static_cast<int32_t>(uniform_double(key, static_cast<uint64_t>(i)) * kVocab));
  request.sampling.temperature = 0;
  request.max_tokens = kAnswerTokens;
  request.all_logits = true;
  return request;
}

// On all ranks of the worker; the leader gets the logits.
Logits run_requests(Worker& worker, int count, bool leader) {
  Logits logits(static_cast<size_t>(count));
  if (leader)
    for (int i = 0; i < count; ++i) worker.engine.submit(test_request(i % kPrompts));
  EngineListener listener;
  listener.on_logits = [&](int32_t id, int64_t, std::span<const float> row) {
    auto& target = logits[static_cast<size_t>(id)];
    target.insert(target.end(), row.begin(), row.end());
  };
  worker.engine.run(listener);
  return logits;
}

// All prompts on this rank alone.
Logits run_alone(MpiSession& session,
                 const InferOptions& options,
                 const Mode& mode,
                 std::unique_ptr<Device> device) {
  Job job = begin_job(session, test_options(options, mode));
  job.source = test_source(mode);
  job.uses_gpus = !device->is_host();
  job.device = std::move(device);
  settle_alone(job);
  const auto alone = make_self_communicator({options.timeout, &session.context(), nullptr});
  Worker worker(*alone, job, session.context());
  return run_requests(worker, kPrompts, true);
}

Logits run_layout(MpiSession& session,
                  const InferOptions& options,
                  const Mode& mode,
                  const GridShape& shape) {
  InferOptions wanted = test_options(options, mode);
  wanted.grid = {shape.data, shape.pipeline, shape.tensor, shape.expert};
  Job job = begin_job(session, wanted);
  job.source = test_source(mode);
  job.device = open_device(session, wanted);
  settle_job(session, job);
  Worker worker(session, job, session.context());
  return run_requests(
      worker, std::clamp(shape.data, kPrompts, kMostRequests), session.world().rank() == 0);
}

// Of the logits of any number of requests from those of the prompts they have.
struct Comparison {
  bool complete = true;  // as many logits
  bool equal = true;     // to the bit
  double deviation = 0;  // largest, as part of the range
};
Comparison compare(const Logits& logits, const Logits& expected) {
  Comparison result;
  for (size_t i = 0; i < logits.size(); ++i) {
    const std::vector<float>& want = expected[i % expected.size()];
    const std::vector<float>& got = logits[i];
    if (got.size() != want.size() || want.empty()) {
      result = {false, false, HUGE_VAL};
      return result;
    }
    if (std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) != 0) result.equal = false;
    const auto [low, high] = std::minmax_element(want.begin(), want.end());
    const double range = static_cast<double>(*high) - *low;
    for (size_t k = 0; k < got.size(); ++k)
      result.deviation =
          std::max(result.deviation, std::abs(static_cast<double>(got[k]) - want[k]) / range);
  }
  return result;
}

// "" where `got` is what `want` promises in this mode.
std::string deviation_text(const Mode& mode, const Comparison& got, double allowed) {
  if (!got.complete) return "logits are missing";
  if (mode.reproducible)
    return got.equal
               ? ""
               : fmt::format("not the same to the bit (off by {:.1e} of the range)", got.deviation);
  if (got.deviation <= allowed) return {};
  return fmt::format("off by {:.1e} of the range, {:.1e} are allowed", got.deviation, allowed);
}

// A part of the test, which counts its own steps; its name stands before the text of what it
// throws.
template <class Body>
void named(MpiSession& session, const std::string& what, const Body& body) {
  const auto text = [&](const Error& error) {
    return fmt::format("self-test, {}: {}", what, error.what());
  };
  session.context() = StepContext();
  try {
    body();
  } catch (const AgreedError& error) {
    throw AgreedError(error.code(), text(error));
  } catch (const Error& error) {
    throw Error(error.code(), text(error));
  }
}

std::string bytes_of(const Logits& logits) {
  std::string bytes;
  for (const std::vector<float>& one : logits)
    bytes.append(reinterpret_cast<const char*>(one.data()), one.size() * sizeof(float));
  return bytes;
}

// Every rank alone, on its CPU and on its GPU. Returns the CPU's logits.
Logits test_alone(MpiSession& session,
                  const InferOptions& options,
                  const Mode& mode,
                  Findings& out) {
  Communicator& world = session.world();
  Logits mine;
  std::string problem;
  named(session, fmt::format("{} alone", mode.name), [&] {
    mine = run_alone(session, options, mode, make_cpu_device());
    std::unique_ptr<Device> device = open_device(session, test_options(options, mode));
    if (device->is_host()) return;
    const std::string name = device->name();
    const Comparison got = compare(run_alone(session, options, mode, std::move(device)), mine);
    problem = deviation_text(mode, got, allowed_deviation(2, kLayers));
    if (!problem.empty())
      problem = fmt::format("{} computes other numbers than its CPU: {}", name, problem);
  });
  std::string first = bytes_of(mine);
  broadcast_string(world, first, 0);
  if (bytes_of(mine) != first) problem = "its CPU computes other numbers than that of rank 0";
  const std::vector<std::string> problems = all_gather_strings(world, problem);
  const std::vector<std::string> hosts = all_gather_strings(world, session.host());
  for (size_t r = 0; r < problems.size(); ++r)
    if (!problems[r].empty())
      out.push_back(
          {FindingKind::kFailure,
           "self-test",
           fmt::format("rank {} on host {}, alone, {}: {}", r, hosts[r], mode.name, problems[r]),
           "take that host out of the job and have its memory, CPU and GPU tested",
           ExitCode::kNumerical});
  return mine;
}

// The default first, then what divides experts most.
std::vector<GridShape> layouts(int world) {
  std::vector<GridShape> shapes = legal_grid_shapes(world, true, false);
  const GridShape usual = complete_grid({}, world, true);
  const auto order = [&](const GridShape& shape) {
    return shape == usual ? 0 : shape.expert == shape.data * shape.tensor ? 1 : 2;
  };
  std::stable_sort(shapes.begin(), shapes.end(), [&](const GridShape& a, const GridShape& b) {
    return order(a) < order(b);
  });
  return shapes;
}

// Rank 0's word on all ranks.
bool shared(Communicator& world, bool word) {
  auto value = static_cast<int32_t>(word);
  world.broadcast(host_tensor(&value, DType::kI32, {1}), 0);
  return value != 0;
}

std::string outcome_text(const SelfTest& test, int ranks) {
  const std::string layouts = test.possible == 1 ? "the only layout"
                              : test.tried == test.possible
                                  ? fmt::format("all {} layouts", test.tried)
                                  : fmt::format("{} of {} layouts", test.tried, test.possible);
  return fmt::format(
      "{} of {} agree{} with one rank: f32 within {:.1e} of the range ({:.1e} are allowed), "
      "q40 --reproducible to the bit",
      layouts,
      ranks == 1 ? "1 rank" : fmt::format("{} ranks", ranks),
      test.possible == 1 ? "s" : "",
      test.deviation,
      test.allowed);
}

}  // namespace

// Layouts differ in the order of sums across ranks: two in each layer, of at most `ranks` parts
// with a rounding of 2^-24 each, as large as the residual stream they are added to. A layer hands
// an error on and adds at most kGain times it (random matrices of variance 1 / columns have
// spectral norms of about 2, and a block holds two of them in a row).
double allowed_deviation(int ranks, int64_t layers) {
  constexpr double kRounding = 1.0 / (1 << 24);
  constexpr double kGain = 4;
  double error = 0;
  for (int64_t layer = 0; layer < layers; ++layer)
    error = error * (1 + kGain) + 2 * ranks * kRounding;
  return error;
}

SelfTest run_self_test(MpiSession& session, const InferOptions& options, double seconds) {
  const auto start = std::chrono::steady_clock::now();
  Communicator& world = session.world();
  SelfTest test;
  test.allowed = allowed_deviation(world.size(), kLayers);
  std::vector<Logits> expected;
  for (const Mode& mode : kModes)
    expected.push_back(test_alone(session, options, mode, test.findings));
  const std::vector<GridShape> shapes = layouts(world.size());
  test.possible = static_cast<int>(shapes.size());
  for (const GridShape& shape : shapes) {
    if (test.tried > 0 && !shared(world, seconds_since(start) < seconds)) break;
    ++test.tried;
    for (size_t m = 0; m < kModes.size(); ++m) {
      Logits logits;
      const std::string what = fmt::format("{}, {}", shape.text(), kModes[m].name);
      named(session, what, [&] { logits = run_layout(session, options, kModes[m], shape); });
      if (world.rank() != 0) continue;
      const Comparison got = compare(logits, expected[m]);
      const std::string problem = deviation_text(kModes[m], got, test.allowed);
      if (!kModes[m].reproducible) test.deviation = std::max(test.deviation, got.deviation);
      if (!problem.empty())
        test.findings.push_back(
            {FindingKind::kFailure,
             "self-test",
             fmt::format("{}: {} from one rank", what, problem),
             "the ranks of one of its groups exchange or compute wrong numbers: "
             "run the doctor on fewer hosts until it passes; with NCCL try "
             "--nccl off",
             ExitCode::kNumerical});
    }
  }
  if (test.findings.empty())
    test.findings.push_back({FindingKind::kOk, "self-test", outcome_text(test, world.size())});
  test.seconds = seconds_since(start);
  return test;
}

}  // namespace glm
