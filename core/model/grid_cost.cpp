// The model of time behind choose_grid() and glm_plan. Per stage and layer: weights read at the
// speed of the cores that the running ranks share, or products where rows are many, keys and
// values, plus the messages that the ranks wait for. docs/planning.md explains each term.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <set>

#include "core/model/grid_planner.h"

namespace glm {
namespace {

// Up to so many bytes an all-reduce is one exchange among all, else two (parallel/).
constexpr double kSmallBytes = 32768;
// Rows up to which a group that shares its tokens sums instead of dispatching (--expert-exchange
// auto), and up to which rows go to all ranks unasked.
constexpr double kReducedRows = 64;
constexpr double kUncountedRows = 8;

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

// Rows of each data rank that pass through the stages together.
struct Rows {
  double count = 1;
  double logits = 1;      // of them
  double positions = 0;   // before each, on average
  bool decoding = false;  // each has a sequence of its own, else they are of one prompt
};

// Of columns that ranks split in blocks: the part of the rank with the most.
double widest_share(int64_t columns, int ranks) {
  const int64_t blocks = std::max<int64_t>(1, (columns + kQuantBlock - 1) / kQuantBlock);
  return static_cast<double>((blocks + ranks - 1) / ranks) / static_cast<double>(blocks);
}

// The experts of a stage: what its busiest share has to do, over the speed of its ranks.
struct ExpertLoad {
  double part = 1;     // of all experts, where all of them are asked for
  double busiest = 0;  // experts, for one row
};

class GridCost {
 public:
  GridCost(const ModelConfig& config,
           const ModelCosts& parts,
           const GridShape& shape,
           const Machine& machine,
           int64_t sequences,
           const Division* division)
      : config_(config), parts_(parts), shape_(shape), machine_(machine) {
    busy_data_ = static_cast<int>(std::min<int64_t>(shape.data, sequences));
    if (shape.expert > shape.tensor) busy_data_ = shape.data;  // all hold experts of the step
    for (int rank = 0; rank < shape.world(); ++rank)
      if (grid_coord(shape, rank).data < busy_data_) ++busy_ranks_[host(rank)];
    for (int p = 0; p < shape.pipeline; ++p) {
      stages_.push_back(division != nullptr ? division->stages[static_cast<size_t>(p)]
                                            : even_share(config.n_layers, 1, p, shape.pipeline));
      speeds_.push_back(slowest(grid_rank(shape, 0, p, 0), shape.data * shape.tensor));
      if (config.is_moe()) loads_.push_back(expert_load(p, division));
    }
  }

  // One pass of rows through all stages, and the slowest stage, while `in_flight` stages work at
  // once.
  struct Pass {
    TimeParts sum;
    TimeParts slowest;
  };
  Pass pass(const Rows& rows, int in_flight) const {
    Pass out;
    for (int stage = 0; stage < shape_.pipeline; ++stage) {
      const TimeParts parts = stage_parts(stage, rows, in_flight);
      out.sum += parts;
      if (parts.total() > out.slowest.total()) out.slowest = parts;
    }
    return out;
  }

  // Of a step beside its passes: planning and sampling, the plan to all ranks and the logits back.
  double step_seconds(int in_flight) const {
    if (shape_.world() == 1) return machine_.step_seconds;
    const Link world = link(0, shape_.world(), crowd_of(0, in_flight));
    return machine_.step_seconds + 2 * world.latency;
  }

 private:
  int host(int rank) const { return machine_.hosts[static_cast<size_t>(rank)]; }

  double slowest(int first_rank, int n) const {
    if (machine_.speeds.empty()) return 1;
    const auto first = machine_.speeds.begin() + first_rank;
    return *std::min_element(first, first + n);
  }

  // The share that takes longest, by its experts and the speed of its ranks.
  ExpertLoad expert_load(int stage, const Division* division) const {
    const ExpertPlacement even(config_.router.n_experts, shape_.expert, expert_slices(shape_));
    const int group = exchange_size(shape_);
    const int plane = shape_.data * shape_.tensor;
    ExpertLoad load{0, 0};
    for (int first = stage * plane; first < (stage + 1) * plane; first += group) {
      const ExpertPlacement& placement =
          division != nullptr ? division->experts[static_cast<size_t>(first / group)] : even;
      std::vector<double> speeds;
      for (int share = 0; share < placement.n_shares; ++share) {
        speeds.push_back(slowest(first + share * placement.n_slices, placement.n_slices));
        const double held = placement.begin(share + 1) - placement.begin(share);
        load.part = std::max(load.part, held / std::max(1, placement.n_experts) / speeds.back());
      }
      if (machine_.speeds.empty()) speeds.clear();
      load.busiest = std::max(load.busiest, busiest_share(placement, config_.router.top_k, speeds));
      if (machine_.speeds.empty() && division == nullptr) break;  // all groups are alike
    }
    return load;
  }

  Link link(int first_rank, int size, double crowd) const {
    std::set<int> hosts;
    for (int rank = first_rank; rank < first_rank + size; ++rank) hosts.insert(host(rank));
    const bool far = hosts.size() > 1;
    const double two = far         ? machine_.remote_latency
                       : crowd > 1 ? machine_.shared_latency
                                   : machine_.local_latency;
    return {size,
            two + machine_.rank_latency * std::max(0, size - 2),
            far ? machine_.remote_rate : machine_.local_rate};
  }

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

  double threads(double crowd) const { return machine_.threads / std::max(1.0, crowd); }

  // Of a rate that cores of a host share: what one rank gets.
  double shared(double rate, double crowd) const {
    const double ranks = crowd * machine_.cores / machine_.threads;
    return std::min(threads(crowd) * rate, machine_.host_read_rate / std::max(1.0, ranks));
  }

  struct Work {
    double reading = 0;
    double products = 0;
  };
  Work work(WeightCost part, double share, double rows, double crowd) const {
    return {share * part.bytes / shared(machine_.read_rate, crowd),
            share * part.elements * rows / (threads(crowd) * machine_.product_rate)};
  }
  // Reading and multiplying go on at the same time.
  static void add_work(TimeParts& parts, const Work& work, double speed) {
    if (work.reading >= work.products)
      parts.weights += work.reading / speed;
    else
      parts.arithmetic += work.products / speed;
  }

  void add_experts(
      TimeParts& parts, int stage, const LayerCosts& layer, double rows, double crowd) const {
    const ExpertLoad& load = loads_[static_cast<size_t>(stage)];
    const double n = config_.router.n_experts;
    const double k = config_.router.top_k;
    const double spread = std::max(1, shape_.expert / shape_.tensor) * rows;  // of joined groups
    const double fair = k * load.part;
    // Rows even out: the excess of the busiest share falls with their root.
    const double excess = std::max(
        1.0, 1 + (load.busiest / std::max(fair, 1e-9) - 1) / std::sqrt(std::max(1.0, spread)));
    const double touched = n * load.part * (1 - std::pow(1 - k / n, spread)) * excess;
    const double slice = widest_share(config_.moe_intermediate, expert_slices(shape_));
    const WeightCost read{layer.expert.bytes * touched, layer.expert.elements * fair * excess};
    // Outputs are written for every pair of row and expert, as wide as the model, and added up.
    const double outputs = 8.0 * spread * fair * excess * static_cast<double>(config_.hidden);
    add_work(parts, work(read, slice, spread, crowd), 1);
    parts.arithmetic += outputs / (threads(crowd) * machine_.row_rate);
  }

  void add_messages(TimeParts& parts,
                    const LayerCosts& layer,
                    double rows,
                    const Link& tensor,
                    const Link& plane) const {
    const double bytes = 4.0 * rows * static_cast<double>(config_.hidden);
    parts.sums += tensor.all_reduce(bytes);  // attention
    const bool summed = !layer.moe || shape_.expert == 1 ||
                        (shape_.expert <= shape_.tensor && rows <= kReducedRows);
    parts.sums += tensor.all_reduce(bytes);  // or, where rows were dispatched, the shared expert
    if (summed) return;
    // Each rank sends its part of the rows to the ranks with their experts, and gets sums back.
    const double copies =
        std::min<double>(shape_.expert, config_.router.top_k) * expert_slices(shape_);
    const double there = plane.exchange(bytes / shape_.tensor * copies);
    parts.dispatch += there + (rows > kUncountedRows ? 2 * plane.exchange(0) : 0);
    parts.combine += there;
  }

  // Of a row of queries: every key and value before it.
  void add_attention(TimeParts& parts, const Rows& rows, double crowd, double speed) const {
    const HeadShare heads =
        head_share(config_.n_heads, config_.n_kv_heads, shape_.tensor - 1, shape_.tensor);
    if (rows.decoding) {
      const double bytes = rows.count * rows.positions * parts_.position_bytes *
                           static_cast<double>(heads.key_value.size());
      parts.cache += bytes / (shared(machine_.cache_rate, crowd) * speed);
      return;
    }
    const double products = 2.0 * rows.count * rows.positions *
                            static_cast<double>(heads.query.size() * config_.head_dim);
    parts.arithmetic += products / (threads(crowd) * machine_.attention_rate * speed);
  }

  double ffn_share(const LayerCosts& layer) const {
    return widest_share(layer.moe ? config_.shared_intermediate : config_.intermediate,
                        shape_.tensor);
  }

  // The heads of the rank with the most, as a part of all.
  double widest_heads() const {
    const HeadShare heads =
        head_share(config_.n_heads, config_.n_kv_heads, shape_.tensor - 1, shape_.tensor);
    return std::max(static_cast<double>(heads.query.size()) / config_.n_heads, 1.0 / shape_.tensor);
  }

  TimeParts stage_parts(int stage, const Rows& rows, int in_flight) const {
    const double crowd = crowd_of(stage, in_flight);
    const int first = grid_rank(shape_, 0, stage, 0);
    const Link tensor = link(first, shape_.tensor, crowd);
    const Link plane = link(first, exchange_size(shape_), crowd);
    const double speed = speeds_[static_cast<size_t>(stage)];
    const double heads = widest_heads();
    const double hidden = static_cast<double>(config_.hidden);
    TimeParts parts;
    const Range layers = stages_[static_cast<size_t>(stage)];
    for (int64_t i = layers.begin; i < layers.end; ++i) {
      const LayerCosts& layer = parts_.layers[static_cast<size_t>(i)];
      add_work(parts, work(layer.attention, heads, rows.count, crowd), speed);
      add_work(parts, work(layer.ffn, ffn_share(layer), rows.count, crowd), speed);
      add_work(parts, work(layer.whole, 1, rows.count, crowd), speed);
      if (layer.moe) add_experts(parts, stage, layer, rows.count, crowd);
      add_attention(parts, rows, crowd, speed);
      add_messages(parts, layer, rows.count, tensor, plane);
      parts.rest += machine_.layer_seconds * std::max(1.0, crowd) +
                    rows.count * hidden / (threads(crowd) * machine_.touch_rate * speed);
    }
    if (stage + 1 == shape_.pipeline) {
      const Work head = work(parts_.head, 1.0 / shape_.tensor, rows.logits, crowd);
      parts.head += std::max(head.reading, head.products) / speed;
      return parts;
    }
    const int next = grid_rank(shape_, 0, stage + 1, 0);
    const bool near = host(first) == host(next);
    parts.sends += machine_.wake_latency +
                   4.0 * rows.count * hidden / (near ? machine_.local_rate : machine_.remote_rate);
    return parts;
  }

  const ModelConfig& config_;
  const ModelCosts& parts_;
  GridShape shape_;
  const Machine& machine_;
  std::vector<Range> stages_;
  std::vector<double> speeds_;     // of the slowest rank of each stage
  std::vector<ExpertLoad> loads_;  // of each stage; none in a dense model
  int busy_data_ = 1;              // data groups that have work
  std::map<int, int> busy_ranks_;  // of each host
};

// All members, in the order of TimeParts.
constexpr double TimeParts::*kMembers[] = {&TimeParts::weights,
                                           &TimeParts::cache,
                                           &TimeParts::arithmetic,
                                           &TimeParts::dispatch,
                                           &TimeParts::combine,
                                           &TimeParts::sums,
                                           &TimeParts::sends,
                                           &TimeParts::bubbles,
                                           &TimeParts::head,
                                           &TimeParts::rest};

}  // namespace

double TimeParts::total() const {
  double sum = 0;
  for (const auto member : kMembers) sum += this->*member;
  return sum;
}

TimeParts& TimeParts::operator+=(const TimeParts& other) {
  for (const auto member : kMembers) this->*member += other.*member;
  return *this;
}

TimeParts TimeParts::scaled(double factor) const {
  TimeParts out = *this;
  for (const auto member : kMembers) out.*member *= factor;
  return out;
}

GridEstimate estimate_grid(const ModelConfig& config,
                           const ModelCosts& costs,
                           const GridShape& shape,
                           const Machine& machine,
                           const Workload& workload,
                           const Division* division) {
  GLM_CHECK(machine.hosts.size() == static_cast<size_t>(shape.world()),
            "hosts of {} ranks for {}",
            machine.hosts.size(),
            shape.text());
  const GridCost cost(config, costs, shape, machine, workload.sequences, division);
  GridEstimate out;
  out.shape = shape;
  const auto prompt = static_cast<double>(workload.prompt_tokens);
  const auto answer = static_cast<double>(workload.answer_tokens);
  // Sequences of the fullest data rank, dealt over the steps that are under way at once.
  const int64_t own = (workload.sequences + shape.data - 1) / shape.data;
  const auto steps = static_cast<int>(std::min<int64_t>(shape.pipeline, own));
  const double rows = static_cast<double>(own) / steps;
  const GridCost::Pass decode = cost.pass({rows, rows, prompt + answer / 2, true}, steps);
  out.decode = decode.sum;
  out.decode.bubbles += std::max(0.0, steps * decode.slowest.total() - decode.sum.total());
  out.decode.rest += cost.step_seconds(steps);
  out.decode_seconds = out.decode.total();

  // Stages work on several chunks at once; while the first and the last are on their way, stages
  // stand still.
  const int64_t chunks =
      (workload.prompt_tokens + workload.chunk_rows - 1) / workload.chunk_rows * own;
  const double chunk = prompt * static_cast<double>(own) / static_cast<double>(chunks);
  const auto in_flight = static_cast<int>(std::min<int64_t>(shape.pipeline, chunks));
  const GridCost::Pass prefill = cost.pass({chunk, 1, prompt / 2, false}, in_flight);
  const auto n = static_cast<double>(chunks);
  const double seconds = prefill.sum.total() + (n - 1) * prefill.slowest.total();
  out.prefill = prefill.sum.scaled(n / shape.pipeline);
  out.prefill.bubbles += seconds - out.prefill.total();
  out.prefill.rest += n * cost.step_seconds(in_flight);
  out.prefill_seconds = out.prefill.total();
  out.total_seconds = out.prefill_seconds + answer * out.decode_seconds;
  return out;
}

}  // namespace glm
