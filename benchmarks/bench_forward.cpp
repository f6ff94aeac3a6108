// Where the time of a step goes, on one rank: time, bytes and share of the roofs of each kind of
// operation, for a prompt chunk and for decode steps of a model file, or of a synthetic q40 model
// in the shape of a config.json. On a GPU the step is timed as it runs, a recorded graph, and each
// operation by itself (timed_ops.h). SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/timed_ops.h"
#include "core/base/check.h"
#include "core/model/division.h"
#include "core/model/model.h"
#include "core/model/model_source.h"

namespace glm::bench {
namespace {

constexpr int64_t kPromptRows = 256;
constexpr int64_t kContext = 1024;
constexpr int64_t kSequences = 8;

// A model file, or the config.json of a synthetic one.
ModelSource open_source(const std::string& path) {
  if (!path.ends_with(".json")) return open_model_source(path);
  return open_synthetic_source(path, {0, {DType::kQ40, DType::kQ40, DType::kQ40}});
}

ModelOptions model_options() {
  ModelOptions options;
  options.limits = {kPromptRows, kSequences, kSequences, kContext};
  options.kv_blocks = kSequences * options.limits.max_blocks();
  return options;
}

// A whole model on one rank, with its operations traced.
class Forward {
 public:
  Forward(const std::string& path, const Options& options, Device& device)
      : source_(open_source(path)),
        config_(parse_config(source_.texts.config, path)),
        world_(make_self_communicator({})),
        grid_(*world_, GridShape{}),
        device_(device),
        plain_device_(device),
        placement_(divide_model(config_, {}, GridShape{}).placement(0, Numerics::kDefault)) {
    const ModelOptions sizes = model_options();
    OpsLimits limits = ops_limits(config_, GridShape{}, sizes.limits);
    limits.fast = limits.half_weights = true;
    ops_ = make_ops(OpsKind::kAuto, device_, options.threads, limits);
    weights_ = make_weights(options.threads);
    model_ = make_model({config_, placement_, grid_, device_, *ops_, *weights_, where_}, sizes);
    if (device_.is_host()) {
      ops_->set_trace(&trace_);
    } else {
      timed_ops_ = std::make_unique<TimedOps>(plain_device_, *ops_);
      timed_model_ = make_model(
          {config_, placement_, grid_, plain_device_, *timed_ops_, *weights_, where_}, sizes);
    }
    batch_ = std::make_unique<Batch>(device_, sizes.limits);
  }

  // One step: `rows` new rows behind `position` of each of n sequences, all with other tokens, so
  // that they choose other experts. The spans of its operations, and of the whole as "step".
  SpanTotals step(int64_t position, int64_t rows, int64_t n) {
    fill(position, rows, n);
    trace_.clear();
    {
      const Span whole(&trace_, "step");
      model_->forward(*batch_);
      device_.wait();
    }
    SpanTotals totals = trace_.totals();
    if (device_.is_host()) return totals;
    timed_ops_->clear();
    timed_model_->forward(*batch_);
    totals.merge(timed_ops_->totals());
    return totals;
  }

 private:
  std::unique_ptr<Weights> make_weights(int threads) {
    if (source_.synthetic)
      return std::make_unique<Weights>(config_, *source_.synthetic, placement_, device_, *ops_);
    if (!source_.index)
      fail(ExitCode::kUsage, "{}: neither a model file nor a .json", escaped(source_.path));
    return std::make_unique<Weights>(
        config_, *source_.index, placement_, device_, true, LoadWork{threads});
  }

  void fill(int64_t position, int64_t rows, int64_t n) {
    StepPlan plan;
    int32_t block = 0;
    for (int64_t s = 0; s < n; ++s) {
      PlanSequence& sequence = plan.sequences.emplace_back();
      sequence.id = static_cast<int32_t>(s);
      sequence.position = static_cast<int32_t>(position);
      sequence.n_logits = 1;
      for (int64_t row = 0; row < rows; ++row)
        sequence.tokens.push_back(
            static_cast<int32_t>((s * rows + row + 1) * 7919 % config_.vocab));
      for (int64_t first = 0; first < position + rows; first += kKvBlockTokens)
        sequence.blocks.push_back(block++);
    }
    batch_->fill(plan, 0);
  }

  ModelSource source_;
  ModelConfig config_;
  StepContext where_;
  std::unique_ptr<Communicator> world_;
  ProcessGrid grid_;
  Device& device_;
  PlainDevice plain_device_;
  Placement placement_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Model> model_;
  // On a GPU: the same model once more, each of its operations timed.
  std::unique_ptr<TimedOps> timed_ops_;
  std::unique_ptr<Model> timed_model_;
  std::unique_ptr<Batch> batch_;
  Trace trace_;
};

struct StepKind {
  std::string name;
  int64_t position;
  int64_t rows;  // of each sequence
  int64_t sequences;
};

// Medians over `repeats` equal steps; the step's own work is the sum of its operations'.
void report_steps(Forward& forward, const Report& report, const StepKind& kind, int repeats) {
  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, Work> work;
  for (int i = -2; i < repeats; ++i) {
    const auto totals = forward.step(kind.position, kind.rows, kind.sequences);
    if (i < 0) continue;
    Work sum;
    for (const auto& [span, total] : totals) {
      seconds[span].push_back(total.seconds);
      work[span] = total.work;
      sum.bytes += total.work.bytes;
      sum.flops += total.work.flops;
    }
    work["step"] = sum;
  }
  std::vector<std::pair<std::string, Timing>> rows_by_time;
  for (auto& [span, samples] : seconds) rows_by_time.emplace_back(span, summarise(samples));
  std::sort(rows_by_time.begin(), rows_by_time.end(), [](const auto& a, const auto& b) {
    return a.second.median > b.second.median;
  });
  for (const auto& [span, timing] : rows_by_time)
    if (report.wants(kind.name + " " + span))
      report.add(kind.name + " " + span, timing, work[span]);
}

int run(int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-')
    fail(
        ExitCode::kUsage,
        "usage: bench_forward MODEL.h5|CONFIG.json [--device cpu|cuda] [--threads N] [--repeats N] "
        "[--filter TEXT] [--roof-mib N] [--json]");
  const std::string model = argv[1];
  const Options options = parse_options(argc - 1, argv + 1);
  const auto device = make_device(options);
  const Report report(options, "bench_forward", *device);
  Forward forward(model, options, *device);
  const int prompts = std::max(3, options.min_repeats / 5);
  const std::vector<std::pair<StepKind, int>> kinds = {
      {{fmt::format("prefill {}", kPromptRows), 0, kPromptRows, 1}, prompts},
      {{"decode at 16", 16, 1, 1}, options.min_repeats},
      {{fmt::format("decode at {}", kContext - 1), kContext - 1, 1, 1}, options.min_repeats},
      {{fmt::format("decode of {} at 112", kSequences), 112, 1, kSequences}, options.min_repeats}};
  // A filter that names steps leaves the others out; one that names operations takes all.
  const bool names_steps = std::any_of(
      kinds.begin(), kinds.end(), [&](const auto& kind) { return report.wants(kind.first.name); });
  for (const auto& [kind, repeats] : kinds)
    if (!names_steps || report.wants(kind.name)) report_steps(forward, report, kind, repeats);
  report.finish();
  return 0;
}

}  // namespace
}  // namespace glm::bench

int main(int argc, char** argv) {
  try {
    return glm::bench::run(argc, argv);
  } catch (const glm::Error& error) {
    std::fprintf(stderr, "bench_forward: error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
