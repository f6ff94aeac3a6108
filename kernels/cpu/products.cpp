// Products with matrices: one walk over units of 16 output columns for all dtypes, packings, dense
// and expert matrices. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/shards.h"

namespace glm {

// Up to 16 rows of a matrix in the form an inner loop takes: a row of tiles, or plain rows.
struct CpuOps::TileView {
  const uint8_t* values;
  const uint16_t* scales;
  int n_rows;
};

namespace {

// Rows [0, n_rows) in Packing::kRows to a row of tiles; missing rows get scale 0.
void repack(const uint8_t* values,
            const uint16_t* scales,
            int n_rows,
            int64_t blocks,
            int64_t block_bytes,
            uint8_t* tile_values,
            uint16_t* tile_scales) {
  for (int64_t b = 0; b < blocks; ++b) {
    uint8_t* tile = tile_values + b * block_bytes * kTileRows;
    for (int r = 0; r < kTileRows; ++r) {
      const int from = std::min(r, n_rows - 1);
      const uint8_t* bytes = values + (from * blocks + b) * block_bytes;
      for (int64_t g = 0; g < block_bytes / 4; ++g)
        std::memcpy(tile + (g * kTileRows + r) * 4, bytes + g * 4, 4);
      tile_scales[b * kTileRows + r] = r < n_rows ? scales[r * blocks + b] : uint16_t{0};
    }
  }
}

// Tiles that one piece of work should have at least: handing out less costs more than doing it.
int64_t smallest_piece(const Weight& w, int64_t inputs) {
  constexpr int64_t kMultiplications = int64_t{1} << 17;
  const int64_t tile = kTileRows * w.cols * inputs;
  return 1 + kMultiplications / (1 + tile);
}

}  // namespace

CpuOps::InputRows CpuOps::prepare_inputs(Tensor x, int64_t n_rows, DType dtype) {
  const int64_t cols = x.cols();
  if (!is_quantized(dtype)) return {x.f32(), nullptr, cols};
  const int64_t blocks = cols / kQuantBlock;
  GLM_CHECK(n_rows * blocks * static_cast<int64_t>(sizeof(QuantBlock)) <= plan_.inputs,
            "{} rows of {} columns exceed the limits of these operations",
            n_rows,
            cols);
  pool_.parallel_for(n_rows, row_grain(cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      table_.quantize_row(x.f32() + t * cols, blocks, inputs_ + t * blocks);
  });
  return {nullptr, inputs_, cols};
}

CpuOps::TileView CpuOps::view_tile(
    const Weight& w, int64_t matrix, int64_t first_row, int n_rows, uint8_t* repacked) const {
  const uint8_t* values = static_cast<const uint8_t*>(w.values) + matrix * w.value_stride() +
                          value_bytes(w.dtype, first_row, w.cols);
  if (!is_quantized(w.dtype)) return {values, nullptr, n_rows};
  const uint16_t* scales =
      static_cast<const uint16_t*>(w.scales) +
      (matrix * w.scale_stride() + scale_bytes(w.dtype, first_row, w.cols)) / 2;
  if (w.packing == Packing::kTile16) return {values, scales, n_rows};
  const int64_t blocks = w.cols / kQuantBlock;
  const int64_t block_bytes = w.dtype == DType::kQ40 ? 16 : 32;
  auto* tile_scales = reinterpret_cast<uint16_t*>(repacked + blocks * kTileRows * kQuantBlock);
  repack(values, scales, n_rows, blocks, block_bytes, repacked, tile_scales);
  return {repacked, tile_scales, n_rows};
}

// out [n][16]: the tile times assignments [first, first + n) of the job.
void CpuOps::multiply(
    const ProductJob& job, const TileView& tile, int64_t first, int n, float* out) const {
  const int64_t cols = job.in.cols;
  const auto row_of = [&](int i) {
    return job.index == nullptr ? first + i : int64_t{job.index[first + i]};
  };
  if (is_quantized(job.w->dtype)) {
    const QuantBlock* inputs[kMaxTileInputs];
    const int64_t blocks = cols / kQuantBlock;
    for (int i = 0; i < n; ++i) inputs[i] = job.in.quantized + row_of(i) * blocks;
    const TileProduct product{
        tile.values, tile.scales, blocks, shard_cols(cols) / kQuantBlock, inputs, n, out};
    (job.w->dtype == DType::kQ40 ? table_.tile_q40 : table_.tile_q80)(product);
    return;
  }
  const float* inputs[kMaxTileInputs];
  for (int i = 0; i < n; ++i) inputs[i] = job.in.f32 + row_of(i) * cols;
  const RowProduct product{tile.values, tile.n_rows, cols, shard_cols(cols), inputs, n, out};
  if (job.w->dtype == DType::kF32)
    table_.rows_f32(product);
  else
    (job.w->dtype == DType::kF16 ? table_.rows_f16 : table_.rows_bf16)(product);
}

// Columns [16 tile, 16 tile + 16) of the job's output.
void CpuOps::run_tile(const ProductJob& job, int64_t tile, int thread) {
  const Weight& w = *job.w;
  uint8_t* repacked = per_thread_ + thread * (plan_.tile + plan_.attention);
  const int64_t first_row = tile * kTileRows;
  const int n_rows = static_cast<int>(std::min(kTileRows, job.width() - first_row));
  TileView main_tile, up_tile{};
  if (!job.gated) {
    main_tile = view_tile(w, job.matrix, first_row, n_rows, repacked);
  } else {
    const bool tiled = w.packing == Packing::kTile16;
    const int64_t gate = tiled ? 2 * first_row : first_row;
    const int64_t up = tiled ? gate + kTileRows : w.rows / 2 + first_row;
    main_tile = view_tile(w, job.matrix, gate, n_rows, repacked);
    up_tile = view_tile(w, job.matrix, up, n_rows, repacked + plan_.tile / 2);
  }
  alignas(64) float result[kMaxTileInputs * kTileRows];
  alignas(64) float up_result[kMaxTileInputs * kTileRows];
  const int64_t last = job.first + job.count;
  for (int64_t i = job.first; i < last; i += kMaxTileInputs) {
    const int n = static_cast<int>(std::min<int64_t>(kMaxTileInputs, last - i));
    multiply(job, main_tile, i, n, result);
    if (job.gated) multiply(job, up_tile, i, n, up_result);
    for (int t = 0; t < n; ++t) {
      const float* from = result + t * kTileRows;
      float* to = job.out + (i + t) * job.width() + first_row;
      if (job.gated)
        table_.silu_mul(from, up_result + t * kTileRows, n_rows, to);
      else if (job.bias == nullptr)
        std::copy(from, from + n_rows, to);
      else
        for (int r = 0; r < n_rows; ++r) to[r] = from[r] + job.bias[first_row + r];
    }
  }
}

void CpuOps::run_job(const ProductJob& job) {
  if (job.count == 0) return;
  const int64_t tiles = (job.width() + kTileRows - 1) / kTileRows;
  const int64_t grain = std::max(smallest_piece(*job.w, job.count), tiles / (8 * pool_.threads()));
  pool_.parallel_for(tiles, grain, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t tile = begin; tile < end; ++tile) run_tile(job, tile, thread);
  });
}

// One flat list of units over all experts that have rows: one join, whatever the experts' loads.
void CpuOps::run_experts(ProductJob job, const ExpertGroups& groups) {
  const int32_t* offsets = groups.offsets.i32();
  int64_t active = 0;
  for (int e = 0; e < groups.n_experts; ++e) {
    if (offsets[e + 1] == offsets[e]) continue;
    GLM_CHECK(active < plan_.experts / 4, "more than {} experts have rows", active);
    experts_[active++] = e;
  }
  const int64_t tiles = (job.width() + kTileRows - 1) / kTileRows;
  const int64_t grain =
      std::max(smallest_piece(*job.w, 1), active * tiles / (32 * pool_.threads()));
  pool_.parallel_for(active * tiles, grain, [&](int64_t begin, int64_t end, int thread) {
    ProductJob own = job;
    for (int64_t unit = begin; unit < end; ++unit) {
      own.matrix = experts_[unit / tiles];
      own.first = offsets[own.matrix];
      own.count = offsets[own.matrix + 1] - own.first;
      run_tile(own, unit % tiles, thread);
    }
  });
}

void CpuOps::do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) {
  if (x.rows() == 0 || w.rows == 0) return;
  ProductJob job;
  job.w = &w;
  job.in = prepare_inputs(x, x.rows(), w.dtype);
  job.count = x.rows();
  job.bias = bias.absent() ? nullptr : bias.f32();
  job.out = out.f32();
  run_job(job);
}

void CpuOps::do_gate_up(Tensor out, Tensor x, const Weight& w) {
  if (x.rows() == 0 || w.rows == 0) return;
  ProductJob job;
  job.w = &w;
  job.in = prepare_inputs(x, x.rows(), w.dtype);
  job.count = x.rows();
  job.out = out.f32();
  job.gated = true;
  run_job(job);
}

void CpuOps::do_expert_gate_up(Tensor out, Tensor x, const ExpertGroups& groups, const Weight& w) {
  if (x.rows() == 0 || w.rows == 0) return;
  ProductJob job;
  job.w = &w;
  job.in = prepare_inputs(x, x.rows(), w.dtype);
  job.index = groups.rows.i32();
  job.out = out.f32();
  job.gated = true;
  run_experts(job, groups);
}

void CpuOps::do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) {
  const int64_t n = groups.offsets.i32()[groups.n_experts];
  if (n == 0 || w.rows == 0) return;
  ProductJob job;
  job.w = &w;
  job.in = prepare_inputs(h, n, w.dtype);
  job.out = out.f32();
  run_experts(job, groups);
}

}  // namespace glm
