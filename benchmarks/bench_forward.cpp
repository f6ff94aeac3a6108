// Where the time of a step goes, on one rank: time, bytes and share of the roofs of each kind of
// operation, for a prompt chunk and for decode steps of a model file (glm_convert --synthetic makes
// one of any shape). SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "benchmarks/harness.h"
#include "core/base/check.h"
#include "core/model/division.h"
#include "core/model/model.h"
#include "core/model/model_source.h"

namespace glm::bench {
namespace {

constexpr int64_t kPromptRows = 256;
constexpr int64_t kContext = 1024;
constexpr int64_t kSequences = 8;

// A whole model on one rank, with its operations traced.
class Forward {
 public:
  Forward(const std::string& path, int threads)
      : index_(read_model_index(path)),
        config_(parse_config(index_.texts.config, path)),
        world_(make_self_communicator({})),
        grid_(*world_, GridShape{}),
        device_(make_cpu_device()) {
    placement_ = divide_model(config_, {}, GridShape{}).placement(0, Numerics::kDefault);
    ModelOptions options;
    options.limits = {kPromptRows, kSequences, kSequences, kContext};
    options.kv_blocks = kSequences * options.limits.max_blocks();
    ops_ = make_ops(
        OpsKind::kAuto, *device_, threads, ops_limits(config_, GridShape{}, options.limits));
    ops_->set_trace(&trace_);
    weights_ = std::make_unique<Weights>(config_, index_, placement_, *device_, true);
    model_ = make_model({config_, placement_, grid_, *device_, *ops_, *weights_, where_}, options);
    batch_ = std::make_unique<Batch>(*device_, options.limits);
  }

  // One step: `rows` new rows behind `position` of each of n sequences, all with other tokens, so
  // that they choose other experts. The spans of its operations, and of the whole as "step".
  std::map<std::string, SpanTotal, std::less<>> step(int64_t position, int64_t rows, int64_t n) {
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
    trace_.clear();
    {
      const Span whole(&trace_, "step");
      model_->forward(*batch_);
    }
    return trace_.totals();
  }

 private:
  ModelIndex index_;
  ModelConfig config_;
  StepContext where_;
  std::unique_ptr<Communicator> world_;
  ProcessGrid grid_;
  std::unique_ptr<Device> device_;
  Placement placement_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Model> model_;
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
    fail(ExitCode::kUsage,
         "usage: bench_forward MODEL.h5 [--threads N] [--repeats N] [--filter TEXT] [--json]");
  const std::string model = argv[1];
  const Options options = parse_options(argc - 1, argv + 1);
  Forward forward(model, options.threads);
  const Report report(options, "bench_forward");
  report_steps(forward,
               report,
               {fmt::format("prefill {}", kPromptRows), 0, kPromptRows, 1},
               std::max(3, options.min_repeats / 5));
  for (const int64_t context : {int64_t{16}, kContext - 1})
    report_steps(forward,
                 report,
                 {fmt::format("decode at {}", context), context, 1, 1},
                 options.min_repeats);
  report_steps(forward,
               report,
               {fmt::format("decode of {} at 112", kSequences), 112, 1, kSequences},
               options.min_repeats);
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
