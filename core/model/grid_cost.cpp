// The model of time behind choose_grid(). Per stage and layer: weights read at the speed of the
// cores that the running ranks share, or products where rows are many, plus the messages that the
// ranks wait for. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <set>

#include "core/model/grid_planner.h"

namespace glm {
namespace {

// Up to so many bytes an all-reduce is one exchange among all, else two (parallel/).
constexpr double kSmallBytes = 32768;

// Ranks that wait for each other, and what a message between them costs.
struct Link {
  int size = 1;
  double latency = 0;
  double rate = 1;
  double all_reduce(double bytes) const {
    if (size == 1) return 0;
    if (bytes <= kSmallBytes) return latency + (size - 1) * bytes / rate;
    return 2 * latency + 2.0 * (size - 1) / size * bytes / rate;
  }
  // `bytes` that this rank sends to all others together.
  double exchange(double bytes) const { return size == 1 ? 0 : latency + bytes / rate; }
};

void add(WeightCost& cost, double bytes, double elements) {
  cost.bytes += bytes;
  cost.elements += elements;
}

// Of columns that ranks split in blocks: the part of the rank with the most.
double widest_share(int64_t columns, int ranks) {
  const int64_t blocks = std::max<int64_t>(1, (columns + kQuantBlock - 1) / kQuantBlock);
  return static_cast<double>((blocks + ranks - 1) / ranks) / static_cast<double>(blocks);
}

class GridCost {
 public:
  GridCost(const ModelConfig& config,
           const ModelCosts& parts,
           const GridShape& shape,
           const Machine& machine,
           int64_t sequences)
      : config_(config), parts_(parts), shape_(shape), machine_(machine) {
    stages_ = even_stages();
    busy_data_ = static_cast<int>(std::min<int64_t>(shape.data, sequences));
    if (shape.expert > shape.tensor) busy_data_ = shape.data;  // all hold experts of the step
    for (int rank = 0; rank < shape.world(); ++rank)
      if (grid_coord(shape, rank).data < busy_data_) ++busy_ranks_[host(rank)];
    if (config.is_moe())
      busiest_ = busiest_share(config.router.n_experts, config.router.top_k, shape.expert);
  }

  // Seconds of one pass of `rows` rows of each data rank through all stages, and of the slowest
  // stage, while `in_flight` stages work at once. logit_rows: of those rows.
  struct Pass {
    double sum = 0;
    double slowest = 0;
  };
  Pass pass(double rows, double logit_rows, int in_flight) const {
    Pass out;
    for (int stage = 0; stage < shape_.pipeline; ++stage) {
      const double seconds = stage_seconds(stage, rows, logit_rows, in_flight);
      out.sum += seconds;
      out.slowest = std::max(out.slowest, seconds);
    }
    return out;
  }

 private:
  std::vector<Range> even_stages() const {
    std::vector<Range> stages;
    for (int p = 0; p < shape_.pipeline; ++p)
      stages.push_back(even_share(config_.n_layers, 1, p, shape_.pipeline));
    return stages;
  }

  Link link(int first_rank, int size, double crowd) const {
    std::set<int> hosts;
    for (int rank = first_rank; rank < first_rank + size; ++rank) hosts.insert(host(rank));
    if (hosts.size() > 1) return {size, machine_.remote_latency, machine_.remote_rate};
    return {
        size, crowd > 1 ? machine_.shared_latency : machine_.local_latency, machine_.local_rate};
  }
  int host(int rank) const { return machine_.hosts[static_cast<size_t>(rank)]; }

  // Threads of working ranks per core of the fullest host of a stage.
  double crowd_of(int stage, int in_flight) const {
    std::map<int, int> here;
    const int plane = shape_.data * shape_.tensor;
    for (int place = 0; place < busy_data_ * shape_.tensor; ++place)
      ++here[host(stage * plane + place)];
    double most = 0;
    for (const auto& [number, ranks] : here)
      most = std::max(most, std::min<double>(busy_ranks_.at(number), 1.0 * ranks * in_flight));
    return most * machine_.threads / machine_.cores;
  }

  double work(WeightCost part, double share, double rows, double crowd) const {
    const double threads = machine_.threads / std::max(1.0, crowd);
    const double ranks = crowd * machine_.cores / machine_.threads;
    const double read =
        std::min(threads * machine_.read_rate, machine_.host_read_rate / std::max(1.0, ranks));
    return share *
           std::max(part.bytes / read, part.elements * rows / (threads * machine_.product_rate));
  }

  double expert_seconds(const LayerCosts& layer, double rows, double crowd) const {
    const double n = config_.router.n_experts;
    const double k = config_.router.top_k;
    const double shares = shape_.expert;
    const double spread = std::max(1, shape_.expert / shape_.tensor) * rows;  // of joined groups
    const double fair = k / shares;
    // Rows even out: the excess of the busiest share falls with their root.
    const double excess = 1 + (busiest_ / fair - 1) / std::sqrt(std::max(1.0, spread));
    const double touched = n / shares * (1 - std::pow(1 - k / n, spread)) * excess;
    const double slice = widest_share(config_.moe_intermediate, expert_slices(shape_));
    const WeightCost read{layer.expert.bytes * touched, layer.expert.elements * fair * excess};
    // Outputs are written for every pair of row and expert, as wide as the model, and added up.
    const double outputs = 8.0 * spread * fair * excess * static_cast<double>(config_.hidden);
    const double threads = machine_.threads / std::max(1.0, crowd);
    return work(read, slice, spread, crowd) + outputs / (threads * machine_.row_rate);
  }

  double layer_messages(const LayerCosts& layer,
                        double rows,
                        const Link& tensor,
                        const Link& plane) const {
    const double bytes = 4.0 * rows * static_cast<double>(config_.hidden);
    const double first = tensor.all_reduce(bytes);  // attention
    if (!layer.moe || shape_.expert == 1) return first + tensor.all_reduce(bytes);
    if (shape_.expert <= shape_.tensor && rows <= 64) return first + tensor.all_reduce(bytes);
    // Each rank sends its part of the rows to the ranks with their experts, and gets sums back.
    const double copies =
        std::min<double>(shape_.expert, config_.router.top_k) * expert_slices(shape_);
    const double there = plane.exchange(bytes / shape_.tensor * copies);
    const double counts = rows > 8 ? 2 * plane.exchange(0) : 0;
    return first + counts + 2 * there + tensor.all_reduce(bytes);
  }

  double ffn_share(const LayerCosts& layer) const {
    return widest_share(layer.moe ? config_.shared_intermediate : config_.intermediate,
                        shape_.tensor);
  }

  double stage_seconds(int stage, double rows, double logit_rows, int in_flight) const {
    const double crowd = crowd_of(stage, in_flight);
    const int first = grid_rank(shape_, 0, stage, 0);
    const Link tensor = link(first, shape_.tensor, crowd);
    const Link plane = link(first, exchange_size(shape_), crowd);
    const double heads =
        static_cast<double>(
            head_share(config_.n_heads, config_.n_kv_heads, shape_.tensor - 1, shape_.tensor)
                .query.size()) /
        config_.n_heads;
    const double share = 1.0 / shape_.tensor;
    double seconds = 0;
    const Range layers = stages_[static_cast<size_t>(stage)];
    for (int64_t i = layers.begin; i < layers.end; ++i) {
      const LayerCosts& layer = parts_.layers[static_cast<size_t>(i)];
      seconds += work(layer.attention, std::max(heads, share), rows, crowd) +
                 work(layer.ffn, ffn_share(layer), rows, crowd) +
                 work(layer.whole, 1, rows, crowd) + layer_messages(layer, rows, tensor, plane);
      if (layer.moe) seconds += expert_seconds(layer, rows, crowd);
    }
    if (stage + 1 == shape_.pipeline) return seconds + work(parts_.head, share, logit_rows, crowd);
    const int next = grid_rank(shape_, 0, stage + 1, 0);
    const bool near = host(first) == host(next);
    const double bytes = 4.0 * rows * static_cast<double>(config_.hidden);
    return seconds + machine_.wake_latency +
           bytes / (near ? machine_.local_rate : machine_.remote_rate);
  }

  const ModelConfig& config_;
  const ModelCosts& parts_;
  GridShape shape_;
  const Machine& machine_;
  std::vector<Range> stages_;
  int busy_data_ = 1;              // data groups that have work
  std::map<int, int> busy_ranks_;  // of each host
  double busiest_ = 0;             // busiest_share() of a row
};

}  // namespace

ModelCosts model_costs(const ModelConfig& config,
                       const std::map<std::string, StoredType, std::less<>>& stored) {
  ModelCosts parts;
  parts.layers.resize(static_cast<size_t>(config.n_layers));
  for (const TensorSpec& spec : tensor_specs(config, false)) {
    const auto type = stored.find(spec.name);
    GLM_CHECK(type != stored.end(), "no stored type of {}", spec.name);
    const auto bytes = static_cast<double>(stored_bytes(spec, type->second));
    const auto elements = static_cast<double>(spec.elements());
    if (spec.layer < 0) {
      if (spec.kind == Kind::kHead || (spec.kind == Kind::kEmbedding && config.tied))
        add(parts.head, bytes, elements);
      continue;
    }
    LayerCosts& layer = parts.layers[static_cast<size_t>(spec.layer)];
    const auto matrices = static_cast<double>(spec.n_matrices());
    if (spec.experts) {
      add(layer.expert, bytes / matrices, elements / matrices);
      layer.moe = true;
    } else if (spec.kind == Kind::kAttention) {
      add(layer.attention, bytes, elements);
    } else if (spec.split == Split::kNone) {
      add(layer.whole, bytes, elements);
    } else {
      add(layer.ffn, bytes, elements);
    }
  }
  return parts;
}

double busiest_share(int n_experts, int top_k, int n_shares) {
  // ways[m]: of choosing j experts with at most m in any share; the mean is the sum over m of the
  // probability that more than m are needed.
  const ExpertPlacement placement{n_experts, n_shares, 1};
  const auto k = static_cast<size_t>(top_k);
  const auto choose = [](int n, size_t j) {
    double ways = 1;
    for (size_t i = 0; i < j; ++i)
      ways *= (n - static_cast<double>(i)) / (static_cast<double>(i) + 1);
    return ways;
  };
  const double all = choose(n_experts, k);
  double mean = 0;
  for (size_t most = 0; most < k; ++most) {
    std::vector<double> ways(k + 1, 0.0);
    ways[0] = 1;
    for (int share = 0; share < n_shares; ++share) {
      const int held = placement.begin(share + 1) - placement.begin(share);
      std::vector<double> next(k + 1, 0.0);
      for (size_t taken = 0; taken <= std::min(most, static_cast<size_t>(held)); ++taken)
        for (size_t j = 0; j + taken <= k; ++j) next[j + taken] += ways[j] * choose(held, taken);
      ways = next;
    }
    mean += 1 - ways[k] / all;
  }
  return mean;
}

GridEstimate estimate_grid(const ModelConfig& config,
                           const ModelCosts& costs,
                           const GridShape& shape,
                           const Machine& machine,
                           const Workload& workload) {
  GLM_CHECK(machine.hosts.size() == static_cast<size_t>(shape.world()),
            "hosts of {} ranks for {}",
            machine.hosts.size(),
            shape.text());
  const GridCost cost(config, costs, shape, machine, workload.sequences);
  GridEstimate out;
  out.shape = shape;
  // Sequences of the fullest data rank, dealt over the steps that are under way at once.
  const int64_t own = (workload.sequences + shape.data - 1) / shape.data;
  const auto steps = static_cast<int>(std::min<int64_t>(shape.pipeline, own));
  const double rows = static_cast<double>(own) / steps;
  const GridCost::Pass decode = cost.pass(rows, rows, steps);
  out.decode_seconds = std::max(decode.sum, steps * decode.slowest);

  const int64_t prompt = workload.prompt_tokens;
  const int64_t chunks = (prompt + workload.chunk_rows - 1) / workload.chunk_rows * own;
  const double chunk = static_cast<double>(prompt * own) / static_cast<double>(chunks);
  const auto in_flight = static_cast<int>(std::min<int64_t>(shape.pipeline, chunks));
  const GridCost::Pass prefill = cost.pass(chunk, 1, in_flight);
  out.prefill_seconds = prefill.sum + static_cast<double>(chunks - 1) * prefill.slowest;
  out.total_seconds =
      out.prefill_seconds + static_cast<double>(workload.answer_tokens) * out.decode_seconds;
  return out;
}

}  // namespace glm
