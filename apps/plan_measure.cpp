// SPDX-License-Identifier: MIT
#include "apps/plan_measure.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include <unistd.h>

#include "apps/infer_job.h"
#include "apps/infer_prediction.h"
#include "apps/infer_report.h"
#include "core/engine/engine.h"
#include "core/model/weights.h"
#include "kernels/roof.h"

namespace glm {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kPasses = 5;
constexpr int64_t kRoofBytes = int64_t{512} << 20;  // of all threads
constexpr int64_t kLeastRoofBytes = int64_t{8} << 20;
constexpr int64_t kPrompt = 512;
constexpr int64_t kAnswer = 33;
constexpr int64_t kHidden = 2048;
constexpr int kHeads = 16, kKvHeads = 4, kHeadDim = 128;
constexpr int64_t kExpertWidth = 704;
constexpr int kExperts = 32, kTopK = 8;
constexpr int64_t kVocab = 8192;
constexpr int64_t kLayers = 4;  // the first of them dense

// A small model in the shape of the family: decoding reads more than caches hold, and half a minute
// is enough for its prompts on any machine.
std::string probe_config() {
  return Json({{"architectures", {"Glm4MoeForCausalLM"}},
               {"model_type", "glm4_moe"},
               {"hidden_size", kHidden},
               {"intermediate_size", 5472},
               {"moe_intermediate_size", kExpertWidth},
               {"num_hidden_layers", kLayers},
               {"first_k_dense_replace", 1},
               {"num_attention_heads", kHeads},
               {"num_key_value_heads", kKvHeads},
               {"head_dim", kHeadDim},
               {"attention_bias", true},
               {"use_qk_norm", false},
               {"n_routed_experts", kExperts},
               {"num_experts_per_tok", kTopK},
               {"n_shared_experts", 1},
               {"n_group", 1},
               {"topk_group", 1},
               {"norm_topk_prob", true},
               {"routed_scaling_factor", 1.0},
               {"partial_rotary_factor", 0.5},
               {"rope_theta", 1000000},
               {"max_position_embeddings", 4096},
               {"rms_norm_eps", 1e-6},
               {"hidden_act", "silu"},
               {"vocab_size", kVocab},
               {"tie_word_embeddings", false},
               {"eos_token_id", {2}}})
      .dump();
}

// What one run of the small model showed, per second and for all threads.
struct Rates {
  std::vector<double> read, products, cache, attention, sums, touched;
  std::vector<double> layer_seconds, step_seconds;
};

bool any_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Sums of a phase's spans, by what the model of time makes of them.
struct Phase {
  SpanTotal products, attention, combine, small;
  double traced() const {
    return products.seconds + attention.seconds + combine.seconds + small.seconds;
  }
  explicit Phase(const std::map<std::string, SpanTotal, std::less<>>& totals) {
    for (const auto& [name, total] : totals) {
      SpanTotal& target =
          any_of(name, {"op.linear", "op.gate_up", "op.expert_gate_up", "op.expert_down"})
              ? products
          : name == "op.attention" ? attention
          : name == "op.combine"   ? combine
                                   : small;
      target.seconds += total.seconds;
      target.work.bytes += total.work.bytes;
      target.work.flops += total.work.flops;
    }
  }
};

// One rank with a small random model, which answers prompts.
class Probe {
 public:
  Probe(DType dtype, int threads)
      : config_(parse_config(probe_config(), "probe")),
        device_(make_cpu_device()),
        world_(make_self_communicator({})),
        grid_(*world_, GridShape{}),
        placement_(divide_model(config_, {}, GridShape{}).placement(0, Numerics::kDefault)) {
    ModelOptions options;
    options.limits = {kPrompt, 1, 1, kPrompt + 2 * kAnswer};
    options.kv_blocks = options.limits.max_blocks();
    ops_ = make_ops(
        OpsKind::kAuto, *device_, threads, ops_limits(config_, GridShape{}, options.limits));
    weights_ = std::make_unique<Weights>(
        config_, SyntheticModel{0, {dtype, dtype, dtype}}, placement_, *device_, *ops_);
    model_ = make_model({config_, placement_, grid_, *device_, *ops_, *weights_, where_}, options);
    engine_ = std::make_unique<Engine>(
        grid_, *model_, *device_, options.limits, options.kv_blocks, config_.vocab, where_);
    device_->commit();
    ops_->set_trace(&trace_);
  }

  // A prompt and an answer; its rates are added.
  void run(Rates& rates) {
    Request request;
    for (int64_t i = 0; i < kPrompt; ++i)
      request.prompt.push_back(static_cast<int32_t>((i * 7919 + 1) % kVocab));
    request.sampling.temperature = 0;
    request.max_tokens = kAnswer;
    engine_->submit(request);
    engine_->clear_stats();
    trace_.clear();
    bool first = true;
    EngineListener listener;
    listener.on_token = [&](int32_t, int32_t) {
      if (first) add_prompt(rates, Phase(trace_.totals()));
      if (first) trace_.clear();
      first = false;
      return true;
    };
    engine_->run(listener);
    add_answer(rates, Phase(trace_.totals()), engine_->stats());
  }

 private:
  static void add_prompt(Rates& rates, const Phase& phase) {
    const double values = static_cast<double>(kPrompt * kLayers * kHidden);
    const double sums = 8.0 * static_cast<double>(kPrompt * (kLayers - 1) * kTopK * kHidden);
    rates.products.push_back(phase.products.work.flops / phase.products.seconds);
    rates.attention.push_back(phase.attention.work.flops / phase.attention.seconds);
    rates.sums.push_back(sums / phase.combine.seconds);
    rates.touched.push_back(values / phase.small.seconds);
  }
  static void add_answer(Rates& rates, const Phase& phase, const EngineStats& stats) {
    const auto steps = static_cast<double>(stats.decode_steps);
    rates.read.push_back(phase.products.work.bytes / phase.products.seconds);
    rates.cache.push_back(phase.attention.work.bytes / phase.attention.seconds);
    rates.layer_seconds.push_back((phase.small.seconds + phase.combine.seconds) / steps / kLayers);
    rates.step_seconds.push_back(std::max(0.0, stats.decode_seconds - phase.traced()) / steps);
  }

  ModelConfig config_;
  StepContext where_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Communicator> world_;
  ProcessGrid grid_;
  Placement placement_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
  Trace trace_;
};

Rates measure_kernels(DType dtype, int threads, double seconds) {
  Probe probe(dtype, threads);
  Rates warm_up;
  probe.run(warm_up);
  Rates rates;
  const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                   std::chrono::duration<double>(seconds));
  for (int i = 0; i < 3 || (Clock::now() < end && i < 100); ++i) probe.run(rates);
  return rates;
}

// Medians, so that they say what runs usually see.
struct HostRoofs {
  double read = 0;
  double int8 = 0;
};
HostRoofs measure_host_peaks(int threads) {
  const int64_t share = std::min(kRoofBytes, available_bytes() / 4) / threads;
  RoofProbe probe(threads, std::max(kLeastRoofBytes, share));
  std::vector<double> read, int8;
  for (int i = 0; i < kPasses; ++i) {
    const RoofProbe::Pass bytes = probe.read();
    read.push_back(bytes.amount / bytes.seconds);
    const RoofProbe::Pass operations = probe.int8();
    int8.push_back(operations.amount / operations.seconds);
  }
  return {median(read), median(int8)};
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "this host";
}

// Seconds of `run` on all ranks of a group: the slowest rank, the median of many.
double timed(Communicator& group, int repeats, const std::function<void()>& run) {
  std::vector<double> samples;
  for (int i = -3; i < repeats; ++i) {
    group.barrier();
    const Clock::time_point start = Clock::now();
    run();
    if (i >= 0) samples.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  return median(samples);
}

// Until the ranks of a group have summed a row, and the bytes per second of a large sum.
LinkSpec measure_link(Communicator& group) {
  constexpr int64_t kRow = 2048, kLarge = 1 << 20;  // f32 values
  std::vector<float> row(kRow, 1.0f), large(kLarge, 1.0f);
  const auto sum = [&](std::vector<float>& values) {
    std::fill(values.begin(), values.end(), 1.0f);
    group.all_reduce_sum(
        host_tensor(values.data(), DType::kF32, {static_cast<int64_t>(values.size())}));
  };
  LinkSpec link;
  const double small = timed(group, 300, [&] { sum(row); });
  const double big = timed(group, 15, [&] { sum(large); });
  const int n = group.size();
  link.bytes_per_second = 2.0 * (n - 1) / n * 4.0 * kLarge / std::max(big / 4, big - 2 * small);
  link.latency = std::max(1e-7, small - (n - 1) * 4.0 * kRow / link.bytes_per_second);
  return link;
}

// The number of each rank's host, in order of appearance.
std::vector<int> hosts_of_ranks(MpiSession& session) {
  std::map<std::string, int> numbers;
  std::vector<int> out;
  for (const std::string& host : all_gather_strings(session.world(), session.host()))
    out.push_back(numbers.try_emplace(host, static_cast<int>(numbers.size())).first->second);
  return out;
}

}  // namespace

MachineSpec measure_host(const MeasureOptions& options) {
  MachineSpec spec;
  spec.process_bytes = peak_resident_bytes();
  bind_process(cpu_share(0, 1).cores);  // mpirun may have bound this one to a core
  const int cores = host_cores();
  const int threads = options.threads > 0 ? options.threads : cores;
  spec.name = host_name();
  spec.figures = "measured; links assumed";
  spec.cpu = cpu_model_name();
  spec.cores_per_node = cores;
  spec.ranks_per_node = 1;
  spec.memory_bytes = available_bytes();
  spec.inside = {8e-6, 30e-6, 0, 5e9};
  const HostRoofs all = measure_host_peaks(threads);
  spec.read_rate = all.read;
  spec.operations = all.int8;
  bool first = true;
  for (const DType dtype : options.dtypes) {
    const Rates rates = measure_kernels(dtype, threads, options.seconds);
    ReachedShares shares;
    shares.read = median(rates.read) / all.read;
    shares.products = median(rates.products) / all.int8;
    shares.cache = median(rates.cache) / all.read;
    shares.attention = median(rates.attention) / all.int8;
    spec.reached_by_dtype[dtype] = shares;
    if (!first) continue;
    first = false;
    spec.reached = shares;
    spec.sum_rate = median(rates.sums) / threads;
    spec.touch_rate = median(rates.touched) / threads;
    spec.layer_seconds = median(rates.layer_seconds);
    spec.step_seconds = median(rates.step_seconds);
    spec.core_read_rate = all.read;
    if (threads > 1) {
      const Rates one = measure_kernels(dtype, 1, options.seconds);
      spec.core_read_rate = std::min(all.read, median(one.read) / shares.read);
    }
  }
  return spec;
}

void measure_links(MpiSession& session, MachineSpec& spec) {
  Communicator& world = session.world();
  const std::vector<int> hosts = hosts_of_ranks(session);
  const int rank = world.rank();
  const int home = hosts[0];
  const auto here = std::count(hosts.begin(), hosts.end(), home);
  const auto place = std::count(hosts.begin(), hosts.begin() + rank, home);
  const bool near = hosts[static_cast<size_t>(rank)] == home;
  // The first two ranks of the first host; its ranks; the first ranks of the first two hosts.
  const std::unique_ptr<Communicator> pair = world.split(near && place < 2 ? 0 : 1, rank, "pair");
  const std::unique_ptr<Communicator> host =
      world.split(hosts[static_cast<size_t>(rank)], rank, "host");
  const auto second = std::find(hosts.begin(), hosts.end(), 1) - hosts.begin();
  const bool across = rank == 0 || rank == second;
  const std::unique_ptr<Communicator> far = world.split(across ? 0 : 1, rank, "across");
  if (here > 1 && near && place < 2) {
    const LinkSpec two = measure_link(*pair);
    spec.inside = {two.latency, two.latency, 0, two.bytes_per_second};
  }
  world.barrier();
  if (here > spec.cores_per_node && near)
    spec.inside.crowded_latency = std::max(spec.inside.latency, measure_link(*host).latency);
  else if (here > 2 && near)
    spec.inside.latency_per_rank =
        std::max(0.0, measure_link(*host).latency - spec.inside.latency) /
        static_cast<double>(here - 2);
  world.barrier();
  if (second < static_cast<int64_t>(hosts.size()) && across) spec.between = measure_link(*far);
  world.barrier();
  if (here > 1) spec.figures = "measured";
}

}  // namespace glm
