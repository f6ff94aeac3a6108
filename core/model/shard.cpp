// Which part of each tensor a rank holds. SPDX-License-Identifier: MIT
#include "core/model/shard.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace glm {
namespace {

// Of the largest stage's capacity.
constexpr double kLeastCapacity = 1e-6;

// Bytes of each layer (index 0..n_layers-1), and of what first and last stage hold besides.
struct StageBytes {
  std::vector<int64_t> layers;
  int64_t first = 0;
  int64_t last = 0;
};

StageBytes stage_bytes(const ModelConfig& config, const DTypeChoice& dtypes, bool mtp) {
  StageBytes result;
  result.layers.resize(static_cast<size_t>(config.n_layers));
  for (const TensorSpec& spec : tensor_specs(config, mtp)) {
    const int64_t bytes = stored_bytes(spec, stored_type(spec, config, dtypes));
    if (spec.kind == Kind::kMtp) {
      if (!spec.optional) result.last += bytes;
      continue;
    }
    if (spec.layer >= 0) {
      result.layers[static_cast<size_t>(spec.layer)] += bytes;
      continue;
    }
    if (spec.kind == Kind::kEmbedding) result.first += bytes;
    if (spec.kind != Kind::kEmbedding || config.tied || mtp) result.last += bytes;
  }
  return result;
}

// Contiguous groups of layers for the stages, none heavier for its capacity than the lightest
// possible heaviest stage, and among those close to proportional.
class StageSplit {
 public:
  // capacities: of each stage, relative to the largest, which is 1.
  StageSplit(const StageBytes& bytes, const std::vector<double>& capacities)
      : bytes_(bytes), capacities_(capacities), n_(static_cast<int>(capacities.size())) {
    prefix_.push_back(0);
    for (const int64_t layer : bytes.layers) prefix_.push_back(prefix_.back() + layer);
  }

  std::vector<Range> split() {
    // What a stage of capacity 1 may hold; all fits into the stage that may hold everything.
    int64_t low = 0;
    const double smallest = *std::min_element(capacities_.begin(), capacities_.end());
    const int64_t all = prefix_.back() + bytes_.first + bytes_.last;
    auto high = static_cast<int64_t>(std::ceil(static_cast<double>(all) / smallest)) + 1;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (fits(middle))
        high = middle;
      else
        low = middle + 1;
    }
    return even_within(low);
  }

 private:
  double capacity(int stage) const { return capacities_[static_cast<size_t>(stage)]; }
  int64_t allowed(int stage, int64_t limit) const {
    return static_cast<int64_t>(static_cast<double>(limit) * capacity(stage));
  }
  int64_t n_layers() const { return static_cast<int64_t>(bytes_.layers.size()); }
  int64_t weight(int64_t begin, int64_t end, int stage) const {
    int64_t bytes = prefix_[static_cast<size_t>(end)] - prefix_[static_cast<size_t>(begin)];
    if (stage == 0) bytes += bytes_.first;
    if (stage == n_ - 1) bytes += bytes_.last;
    return bytes;
  }

  // For each stage the first layer from which it and all later ones can hold the rest.
  std::vector<int64_t> earliest(int64_t limit) const {
    std::vector<int64_t> begin(static_cast<size_t>(n_) + 1, n_layers());
    for (int stage = n_ - 1; stage >= 0; --stage) {
      const int64_t end = begin[static_cast<size_t>(stage) + 1];
      int64_t first = end;
      while (first > 0 && weight(first - 1, end, stage) <= allowed(stage, limit)) --first;
      begin[static_cast<size_t>(stage)] = first;
    }
    return begin;
  }

  bool fits(int64_t limit) const {
    return bytes_.first <= allowed(0, limit) && bytes_.last <= allowed(n_ - 1, limit) &&
           earliest(limit)[0] == 0;
  }

  std::vector<Range> even_within(int64_t limit) const {
    const std::vector<int64_t> begin = earliest(limit);
    std::vector<Range> stages;
    int64_t from = 0;
    double capacity_left = std::accumulate(capacities_.begin(), capacities_.end(), 0.0);
    for (int stage = 0; stage < n_; ++stage) {
      int64_t to = std::max(from, begin[static_cast<size_t>(stage) + 1]);
      // The fair share of what is left; the last stage's extra bytes count for it.
      const int64_t left = prefix_.back() - prefix_[static_cast<size_t>(from)] +
                           (stage == 0 ? bytes_.first : 0) + bytes_.last;
      const auto fair =
          static_cast<int64_t>(static_cast<double>(left) * capacity(stage) / capacity_left);
      capacity_left -= capacity(stage);
      while (to < n_layers() && weight(from, to + 1, stage) <= allowed(stage, limit) &&
             weight(from, to + 1, stage) - fair <= fair - weight(from, to, stage))
        ++to;
      stages.push_back({from, to});
      from = to;
    }
    return stages;
  }

  const StageBytes& bytes_;
  const std::vector<double>& capacities_;
  int n_;
  std::vector<int64_t> prefix_;
};

void append_range(std::vector<Range>& ranges, Range range) {
  if (range.size() <= 0) return;
  if (!ranges.empty() && ranges.back().end == range.begin)
    ranges.back().end = range.end;
  else
    ranges.push_back(range);
}

bool on_stage(const TensorSpec& spec, const ModelConfig& config, const Placement& placement) {
  const int stage = placement.coord.pipeline;
  const int last = static_cast<int>(placement.stages.size()) - 1;
  if (spec.kind == Kind::kMtp) return placement.mtp && !spec.optional && stage == last;
  if (spec.layer >= 0) {
    const Range range = placement.layers();
    return spec.layer >= range.begin && spec.layer < range.end;
  }
  if (spec.kind == Kind::kEmbedding)
    return stage == 0 || ((config.tied || placement.mtp) && stage == last);
  return stage == last;
}

// This rank's place among those that divide a tensor.
struct Place {
  int rank = 0;
  int size = 1;
};

std::vector<Range> qkv_rows(const ModelConfig& config, Place place) {
  const HeadShare heads = head_share(config.n_heads, config.n_kv_heads, place.rank, place.size);
  const int64_t d = config.head_dim;
  const int64_t key = config.n_heads * d;
  const int64_t value = key + config.n_kv_heads * d;
  std::vector<Range> rows;
  append_range(rows, {heads.query.begin * d, heads.query.end * d});
  append_range(rows, {key + heads.key_value.begin * d, key + heads.key_value.end * d});
  append_range(rows, {value + heads.key_value.begin * d, value + heads.key_value.end * d});
  return rows;
}

std::vector<Range> gate_up_rows(int64_t inner, Packing packing, Place place) {
  const Range share = even_share(inner, kQuantBlock, place.rank, place.size);
  std::vector<Range> rows;
  if (packing == Packing::kTile16) {
    append_range(rows, {2 * share.begin, 2 * share.end});
  } else {
    append_range(rows, share);
    append_range(rows, {inner + share.begin, inner + share.end});
  }
  return rows;
}

// Columns rounded out to whole blocks where the dtype needs it.
void set_columns(Slab& slab, Range active, int64_t cols, DType dtype) {
  slab.active_cols = active;
  slab.cols = active;
  if (!is_quantized(dtype) || active.size() == 0) return;
  slab.cols.begin = active.begin / kQuantBlock * kQuantBlock;
  slab.cols.end = std::min(cols, (active.end + kQuantBlock - 1) / kQuantBlock * kQuantBlock);
}

}  // namespace

Range even_share(int64_t count, int64_t unit, int r, int n) {
  const int64_t units = (count + unit - 1) / unit;
  return {std::min(count, units * r / n * unit), std::min(count, units * (r + 1) / n * unit)};
}

HeadShare head_share(int n_heads, int n_kv_heads, int t, int t_size) {
  const int64_t ratio = n_heads / n_kv_heads;
  if (t_size <= n_kv_heads) {
    const Range kv = even_share(n_kv_heads, 1, t, t_size);
    return {{kv.begin * ratio, kv.end * ratio}, kv};
  }
  const Range query = even_share(n_heads, 1, t, t_size);
  if (query.size() == 0) return {query, {query.begin / ratio, query.begin / ratio}};
  return {query, {query.begin / ratio, (query.end + ratio - 1) / ratio}};
}

std::vector<Range> stage_layers(const ModelConfig& config,
                                const DTypeChoice& dtypes,
                                int pipeline,
                                const std::vector<double>& capacities,
                                bool mtp) {
  std::vector<double> relative = capacities;
  if (relative.empty()) relative.assign(static_cast<size_t>(pipeline), 1.0);
  GLM_CHECK(relative.size() == static_cast<size_t>(pipeline), "{} capacities", relative.size());
  const double largest = *std::max_element(relative.begin(), relative.end());
  // A stage without any capacity still counts: it shall hold as little as possible.
  for (double& capacity : relative) capacity = std::max(capacity / largest, kLeastCapacity);
  const StageBytes bytes = stage_bytes(config, dtypes, mtp);
  return StageSplit(bytes, relative).split();
}

bool Slab::empty() const { return matrices.size() <= 0 || cols.size() <= 0 || local_rows() == 0; }

int64_t Slab::local_rows() const {
  int64_t n = 0;
  for (const Range& range : rows) n += range.size();
  return n;
}

Slab shard_of(const TensorSpec& spec,
              StoredType type,
              const ModelConfig& config,
              const Placement& placement) {
  Slab slab;
  const GridCoord& coord = placement.coord;
  const Numerics numerics = placement.numerics;
  if (!on_stage(spec, config, placement)) return slab;
  const bool vector = spec.dims.size() == 1;
  const int64_t rows = vector ? spec.cols() : spec.rows();
  const int64_t cols = vector ? 1 : spec.cols();
  Place place{coord.tensor, placement.shape.tensor};
  slab.matrices = {0, 1};
  if (spec.experts) {
    const ExpertPlacement& experts = placement.experts;
    slab.matrices = {experts.begin(coord.expert), experts.begin(coord.expert + 1)};
    place = {coord.expert_slice, experts.n_slices};
  }
  slab.rows = {{0, rows}};
  set_columns(slab, {0, cols}, cols, type.dtype);
  const auto share_rows = [&] {
    slab.rows.clear();
    append_range(slab.rows, even_share(rows, kTileRows, place.rank, place.size));
  };
  switch (spec.split) {
    case Split::kNone:
      break;
    case Split::kVocab:
      share_rows();
      break;
    case Split::kQkv:
      slab.rows = qkv_rows(config, place);
      break;
    case Split::kGateUp:
      slab.rows = gate_up_rows(rows / 2, type.packing, place);
      break;
    case Split::kHeadCols:
      if (numerics == Numerics::kReproducible) {
        share_rows();
      } else {
        const Range heads =
            head_share(config.n_heads, config.n_kv_heads, place.rank, place.size).query;
        set_columns(
            slab, {heads.begin * config.head_dim, heads.end * config.head_dim}, cols, type.dtype);
      }
      break;
    case Split::kDown:
      if (numerics == Numerics::kReproducible)
        share_rows();
      else
        set_columns(slab, even_share(cols, kQuantBlock, place.rank, place.size), cols, type.dtype);
      break;
  }
  return slab;
}

int64_t slab_bytes(const Slab& slab, StoredType type) {
  if (slab.empty()) return 0;
  const int64_t rows = slab.local_rows();
  const int64_t cols = slab.cols.size();
  return slab.matrices.size() *
         (value_bytes(type.dtype, rows, cols) + scale_bytes(type.dtype, rows, cols));
}

}  // namespace glm
