// Bytes per rank, summed over the table of tensors. SPDX-License-Identifier: MIT
#include "core/model/memory_plan.h"

#include <algorithm>

namespace glm {
namespace {

// The parts of `range` that no range of `covered` holds; covered is ascending and disjoint.
std::vector<Range> uncovered(Range range, const std::vector<Range>& covered) {
  std::vector<Range> parts;
  int64_t from = range.begin;
  for (const Range& held : covered) {
    if (held.end <= from) continue;
    if (held.begin >= range.end) break;
    if (held.begin > from) parts.push_back({from, held.begin});
    from = held.end;
  }
  if (from < range.end) parts.push_back({from, range.end});
  return parts;
}

void cover(std::vector<Range>& covered, Range range) {
  covered.push_back(range);
  std::sort(covered.begin(), covered.end(), [](const Range& a, const Range& b) {
    return a.begin < b.begin;
  });
  std::vector<Range> merged;
  for (const Range& next : covered) {
    if (!merged.empty() && next.begin <= merged.back().end)
      merged.back().end = std::max(merged.back().end, next.end);
    else
      merged.push_back(next);
  }
  covered = std::move(merged);
}

// What earlier ranks hold of one tensor. Ranks cut each matrix by either rows or columns, never by
// both; data groups may deal out the matrices differently.
class Coverage {
 public:
  // Bytes of `slab` that are new; they count as held from now on.
  int64_t add(const Slab& slab, StoredType type, int64_t rows_of_tensor) {
    if (slab.empty()) return 0;
    int64_t bytes = 0;
    Slab one = slab;
    for (int64_t m = slab.matrices.begin; m < slab.matrices.end; ++m) {
      one.matrices = {m, m + 1};
      bytes += add_matrix(one, type, rows_of_tensor);
    }
    return bytes;
  }

 private:
  int64_t add_matrix(const Slab& slab, StoredType type, int64_t rows_of_tensor) {
    Held& held = held_[slab.matrices.begin];
    int64_t bytes = 0;
    Slab part = slab;
    if (slab.local_rows() != rows_of_tensor) {
      for (const Range& rows : slab.rows) {
        part.rows = uncovered(rows, held.rows);
        bytes += slab_bytes(part, type);
        cover(held.rows, rows);
      }
      return bytes;
    }
    for (const Range& piece : uncovered(slab.cols, held.cols)) {
      part.cols = piece;
      bytes += slab_bytes(part, type);
    }
    cover(held.cols, slab.cols);
    return bytes;
  }

  struct Held {
    std::vector<Range> rows;
    std::vector<Range> cols;
  };
  std::map<int64_t, Held> held_;  // by matrix
};

int64_t kv_bytes(const ModelConfig& config,
                 const Placement& placement,
                 const PlanRequest& request) {
  const GridCoord& coord = placement.coord;
  const HeadShare heads =
      head_share(config.n_heads, config.n_kv_heads, coord.tensor, placement.shape.tensor);
  const int64_t page = KvLayer::page_bytes(
      request.kv_dtype, static_cast<int>(heads.key_value.size()), config.head_dim);
  return placement.cached_layers() * request.kv_blocks * 2 * page;
}

StoredType type_of(const TensorSpec& spec, const ModelConfig& config, const PlanRequest& request) {
  const auto found = request.stored.find(spec.name);
  if (found != request.stored.end()) return found->second;
  return stored_type(spec, config, request.dtypes);
}

std::string range_text(Range range) {
  if (range.size() <= 0) return "-";
  return fmt::format("{}-{}", range.begin, range.end - 1);
}

std::string gigabytes(int64_t bytes, int decimals) {
  return fmt::format("{:.{}f}", static_cast<double>(bytes) / 1e9, decimals);
}

int64_t kind_bytes(const RankPlan& rank, std::initializer_list<Kind> kinds) {
  int64_t bytes = 0;
  for (const Kind kind : kinds)
    if (const auto at = rank.weights.find(kind); at != rank.weights.end()) bytes += at->second;
  return bytes;
}

std::string experts_text(const RankPlan& rank) {
  const std::string experts = range_text(rank.experts);
  if (rank.expert_slices == 1 || rank.experts.size() == 0) return experts;
  return fmt::format("{} /{}", experts, rank.expert_slices);
}

// The MTP layer is part of the last stage's experts in the table.
std::string mtp_text(const MemoryPlan& plan) {
  const char* believed = plan.mtp_believed ? " (num_nextn_predict_layers is believed)" : "";
  if (!plan.mtp_loaded)
    return fmt::format(
        "MTP layer {} GB more in the file, not loaded{}\n", gigabytes(plan.mtp_bytes, 2), believed);
  int64_t loaded = 0;
  for (const RankPlan& rank : plan.ranks) loaded += kind_bytes(rank, {Kind::kMtp});
  return fmt::format("MTP layer {} GB on the last stage, loaded to draft tokens{}\n",
                     gigabytes(loaded, 2),
                     believed);
}

std::string heads_text(const ModelConfig& config, const GridShape& shape, GridCoord coord) {
  const HeadShare heads = head_share(config.n_heads, config.n_kv_heads, coord.tensor, shape.tensor);
  return fmt::format("{} kv {}", range_text(heads.query), range_text(heads.key_value));
}

}  // namespace

int64_t RankPlan::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& [kind, n] : weights) bytes += n;
  return bytes;
}

int64_t RankPlan::total_bytes() const {
  return weight_bytes() + kv_bytes + buffer_bytes + process_bytes;
}

MemoryPlan plan_memory(const ModelConfig& config,
                       const GridShape& shape,
                       const PlanRequest& request) {
  return plan_division(config, divide_model(config, request.dtypes, shape), request);
}

MemoryPlan plan_division(const ModelConfig& config,
                         const Division& division,
                         const PlanRequest& request) {
  const GridShape& shape = division.shape;
  MemoryPlan plan;
  plan.shape = shape;
  plan.mtp_believed = request.with_mtp && request.stored.empty();
  plan.mtp_loaded = division.mtp;
  std::vector<Placement> placements;
  for (int rank = 0; rank < shape.world(); ++rank) {
    const Placement& placement =
        placements.emplace_back(division.placement(rank, request.numerics));
    RankPlan& row = plan.ranks.emplace_back();
    row.coord = placement.coord;
    row.layers = placement.layers();
    row.experts = {placement.experts.begin(row.coord.expert),
                   placement.experts.begin(row.coord.expert + 1)};
    row.expert_slices = placement.experts.n_slices;
    row.kv_bytes = kv_bytes(config, placement, request);
  }
  for (const TensorSpec& spec : tensor_specs(config, request.with_mtp || division.mtp)) {
    const StoredType type = type_of(spec, config, request);
    if (spec.kind == Kind::kMtp) {
      const bool exists =
          request.stored.empty() ? !spec.optional : request.stored.contains(spec.name);
      if (exists) plan.mtp_bytes += stored_bytes(spec, type);
      if (!division.mtp || spec.optional) continue;
    }
    plan.model_bytes += stored_bytes(spec, type);
    const int64_t rows = spec.dims.size() == 1 ? spec.cols() : spec.rows();
    Coverage coverage;
    for (size_t rank = 0; rank < placements.size(); ++rank) {
      RankPlan& row = plan.ranks[rank];
      const Slab slab = shard_of(spec, type, config, placements[rank]);
      const int64_t bytes = slab_bytes(slab, type);
      if (bytes == 0) continue;
      row.weights[spec.kind] += bytes;
      row.replicated_bytes += bytes - coverage.add(slab, type, rows);
    }
  }
  return plan;
}

std::string plan_text(const ModelConfig& config, const MemoryPlan& plan) {
  std::string text = fmt::format("{} model, {} layers, {} ranks: {}\n",
                                 family_name(config.family),
                                 config.n_layers,
                                 plan.ranks.size(),
                                 plan.shape.text());
  text +=
      fmt::format("{:>4}  {:>9} {:>15} {:>18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
                  "rank",
                  "layers",
                  "experts",
                  "heads",
                  "embed",
                  "attention",
                  "ffn",
                  "experts",
                  "cache",
                  "buffers",
                  "process",
                  "total GB");
  int64_t replicated = 0;
  int64_t largest = 0;
  for (size_t i = 0; i < plan.ranks.size(); ++i) {
    const RankPlan& rank = plan.ranks[i];
    const int64_t ends = kind_bytes(rank, {Kind::kEmbedding, Kind::kHead, Kind::kNorm});
    const int64_t ffn = kind_bytes(rank, {Kind::kDense, Kind::kShared, Kind::kRouter});
    text +=
        fmt::format("{:>4}  {:>9} {:>15} {:>18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
                    i,
                    range_text(rank.layers),
                    experts_text(rank),
                    heads_text(config, plan.shape, rank.coord),
                    gigabytes(ends, 3),
                    gigabytes(kind_bytes(rank, {Kind::kAttention}), 3),
                    gigabytes(ffn, 3),
                    gigabytes(kind_bytes(rank, {Kind::kExperts, Kind::kMtp}), 3),
                    gigabytes(rank.kv_bytes, 3),
                    gigabytes(rank.buffer_bytes, 3),
                    gigabytes(rank.process_bytes, 3),
                    gigabytes(rank.total_bytes(), 3));
    replicated += rank.replicated_bytes;
    largest = std::max(largest, rank.total_bytes());
  }
  text += fmt::format("weights total {} GB\n", gigabytes(plan.model_bytes, 2));
  text += fmt::format("replicated {} GB more, held by several ranks\n", gigabytes(replicated, 2));
  text += fmt::format("largest rank {} GB\n", gigabytes(largest, 2));
  if (plan.mtp_bytes > 0) text += mtp_text(plan);
  return text;
}

}  // namespace glm
