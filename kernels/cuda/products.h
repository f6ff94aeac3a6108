// Products with a matrix on tensor cores, for any format that comes in blocks of 32 columns. A warp
// owns 16 rows of the matrix and walks the blocks of a shard in order, so that a dot product has
// the same bits however many inputs there are (docs/numerics.md). A format says how a warp loads 16
// x 32 weights straight from memory to the fragments of an mma, and how inputs become the other
// fragment:
//   Weights weights(args, matrix, first_row, lane)     pointers of a lane
//   Raw load(weights, block)                           what a lane reads of a block
//   kInFlight                                          blocks whose loads are started at once
//   Fragment fragment(raw)                             ready for mma
//   Input input(args, rows, block, lane)               of the inputs that are the lane's columns
//   stage(...), staged(...)                            the same by way of shared memory
//   multiply(fragment, input, sums)                    sums[4]: the lane's place in 16 x 8 results
// SPDX-License-Identifier: MIT
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.h"

namespace glm::GLM_CUDA_SPACE {

constexpr int kColumns = 32;   // of a block
constexpr int kRowTile = 16;   // matrix rows of a warp
constexpr int kFewWarps = 8;   // at most, of a block for few inputs
constexpr int kManyWarps = 4;  // of a block for many

// Row of the matrix behind output `16 tile` of part 0 (gate, or all) or 1 (up).
GLM_DEVICE int64_t first_row_of(const ProductArgs& a, int part, int64_t tile) {
  if (!a.gated) return tile * kRowTile;
  return a.tiles ? (2 * tile + part) * kRowTile : part * a.width + tile * kRowTile;
}

// The work of this block; count 0: none.
GLM_DEVICE WorkItem work_of(const ProductArgs& a, int tile) {
  const int y = static_cast<int>(blockIdx.y);
  if (a.items != nullptr) return y < *a.n_items ? a.items[y] : WorkItem{0, 0, 0};
  const int64_t first = int64_t{y} * tile;
  const int64_t left = a.n_inputs - first;
  return {0, static_cast<int32_t>(first), static_cast<int32_t>(left < tile ? left : tile)};
}

// Row of x behind input n of an item; those beyond the last stand for the last.
GLM_DEVICE int64_t input_row(const ProductArgs& a, const WorkItem& item, int n) {
  const int at = item.first + (n < item.count ? n : item.count - 1);
  return a.index == nullptr ? at : a.index[at];
}

// Rows of x of a lane: its column of the inputs' fragment, and its two columns of the results.
struct InputRows {
  int64_t own;
  int64_t first;
  int64_t second;
};
GLM_DEVICE InputRows input_rows(const ProductArgs& a, const WorkItem& item, int tile, int lane) {
  const int result = 8 * tile + lane % 4 * 2;
  return {input_row(a, item, 8 * tile + lane / 4),
          input_row(a, item, result),
          input_row(a, item, result + 1)};
}

// Rows beyond the matrix stand for its last.
GLM_DEVICE int64_t bounded_row(const ProductArgs& a, int64_t row) {
  return row < a.rows ? row : a.rows - 1;
}

// Adds the shards in ascending order, results [part * n_shards + shard][tile][16], and writes the
// outputs of an item.
GLM_DEVICE void finish_rows(const ProductArgs& a,
                            const WorkItem& item,
                            const float* results,
                            int tile) {
  for (int n = static_cast<int>(threadIdx.x); n < item.count * kRowTile;
       n += static_cast<int>(blockDim.x)) {
    const int64_t m = int64_t{blockIdx.x} * kRowTile + n % kRowTile;
    if (m >= a.width) continue;
    float y[2] = {0.0f, 0.0f};
    for (int part = 0; part < (a.gated ? 2 : 1); ++part) {
      const float* p = results + int64_t{part} * a.n_shards * tile * kRowTile + n;
      for (int s = 0; s < a.n_shards; ++s)
        y[part] = s == 0 ? *p : y[part] + p[int64_t{s} * tile * kRowTile];
    }
    float value = a.gated ? silu_of(y[0]) * y[1] : y[0];
    if (a.bias != nullptr) value = value + a.bias[m];
    a.out[(int64_t{item.first} + n / kRowTile) * a.width + m] = value;
  }
}

inline size_t few_shared_bytes(const ProductArgs& a, int tile) {
  const size_t parts = a.gated ? 2 : 1;
  return parts * static_cast<size_t>(a.n_shards) * static_cast<size_t>(tile * kRowTile) *
         sizeof(float);
}

// ---- few inputs: a block is 16 rows of the matrix (32 with gate and up), its warps take the
// shards

template <class Format, int kTiles>
GLM_DEVICE void walk_shard(const ProductArgs& a,
                           const typename Format::Weights& weights,
                           const InputRows (&rows)[kTiles],
                           int shard,
                           float (&sums)[kTiles][4]) {
  const int64_t begin = shard * a.shard_blocks;
  const int64_t end = begin + a.shard_blocks < a.blocks ? begin + a.shard_blocks : a.blocks;
  const int lane = lane_id();
  for (int64_t b = begin; b < end; b += Format::kInFlight) {
    typename Format::Raw raw[Format::kInFlight];
    GLM_UNROLL
    for (int i = 0; i < Format::kInFlight; ++i)
      raw[i] = Format::load(weights, b + i < end ? b + i : end - 1);
    GLM_UNROLL
    for (int i = 0; i < Format::kInFlight; ++i) {
      if (b + i >= end) break;
      const typename Format::Fragment fragment = Format::fragment(raw[i]);
      GLM_UNROLL
      for (int t = 0; t < kTiles; ++t)
        Format::multiply(fragment, Format::input(a, rows[t], b + i, lane), sums[t]);
    }
  }
}

template <class Format, int kTiles>
__global__ void GLM_BOUNDS(kFewWarps * 32, 2) few_inputs(ProductArgs a) {
  constexpr int kTile = 8 * kTiles;
  const WorkItem item = work_of(a, kTile);
  if (item.count <= 0) return;
  float* results = shared_as<float>();
  const int lane = lane_id();
  const int n_warps = static_cast<int>(blockDim.x) / 32;
  const int n_units = (a.gated ? 2 : 1) * a.n_shards;
  InputRows rows[kTiles];
  for (int t = 0; t < kTiles; ++t) rows[t] = input_rows(a, item, t, lane);
  for (int unit = static_cast<int>(threadIdx.x) / 32; unit < n_units; unit += n_warps) {
    const int64_t first = first_row_of(a, unit / a.n_shards, blockIdx.x);
    const auto weights = Format::weights(a, item.matrix, first, lane);
    float sums[kTiles][4] = {};
    walk_shard<Format, kTiles>(a, weights, rows, unit % a.n_shards, sums);
    for (int t = 0; t < kTiles; ++t) {
      for (int i = 0; i < 4; ++i) {
        const int input = 8 * t + lane % 4 * 2 + i % 2;
        results[(unit * kTile + input) * kRowTile + lane / 4 + i / 2 * 8] = sums[t][i];
      }
    }
  }
  __syncthreads();
  finish_rows(a, item, results, kTile);
}

// ---- many inputs: a block is 64 rows of the matrix (gate and up: 2 x 32) times 64 inputs, which
// pass through shared memory

constexpr int kManyTiles = kTileInputs / 8;

// What a warp has of a block's outputs: rows [first_row, + 16) of part `part` of output tile
// `tile`.
struct WarpPlace {
  int part;
  int64_t tile;
};

GLM_DEVICE WarpPlace warp_place(const ProductArgs& a) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (!a.gated) return {0, int64_t{blockIdx.x} * kManyWarps + warp};
  return {warp % 2, int64_t{blockIdx.x} * (kManyWarps / 2) + warp / 2};
}

GLM_DEVICE void store_many(const ProductArgs& a,
                           const WorkItem& item,
                           const WarpPlace& place,
                           const float (&y)[kManyTiles][4]) {
  const int lane = lane_id();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  float* up = shared_as<float>() + warp / 2 * kTileInputs * kRowTile;
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1 && a.gated) __syncthreads();
    if (pass == 0 && !a.gated) continue;
    if (a.gated && place.part != 1 - pass) continue;
    for (int t = 0; t < kManyTiles; ++t) {
      for (int i = 0; i < 4; ++i) {
        const int input = 8 * t + lane % 4 * 2 + i % 2;
        const int row = lane / 4 + i / 2 * 8;
        const int64_t m = place.tile * kRowTile + row;
        if (pass == 0) {
          up[input * kRowTile + row] = y[t][i];
        } else if (input < item.count && m < a.width) {
          float value = a.gated ? silu_of(y[t][i]) * up[input * kRowTile + row] : y[t][i];
          if (a.bias != nullptr) value = value + a.bias[m];
          a.out[(int64_t{item.first} + input) * a.width + m] = value;
        }
      }
    }
  }
}

// Blocks [begin, end) of a shard, at most Format::kStaged of them, from shared memory.
template <class Format>
GLM_DEVICE void multiply_staged(const typename Format::Weights& weights,
                                int64_t begin,
                                int64_t end,
                                int used,
                                float (&sums)[kManyTiles][4]) {
  typename Format::Raw raw[Format::kStaged];
  GLM_UNROLL
  for (int i = 0; i < Format::kStaged; ++i)
    raw[i] = Format::load(weights, begin + i < end ? begin + i : end - 1);
  __syncthreads();
  GLM_UNROLL
  for (int i = 0; i < Format::kStaged; ++i) {
    if (begin + i >= end) break;
    const typename Format::Fragment fragment = Format::fragment(raw[i]);
    GLM_UNROLL
    for (int t = 0; t < kManyTiles; ++t)
      if (t < used) Format::multiply(fragment, Format::staged(i, t, lane_id()), sums[t]);
  }
  __syncthreads();
}

template <class Format>
__global__ void GLM_BOUNDS(kManyWarps * 32, 3) many_inputs(ProductArgs a) {
  const WorkItem item = work_of(a, kTileInputs);
  if (item.count <= 0) return;
  const WarpPlace place = warp_place(a);
  const auto weights =
      Format::weights(a, item.matrix, first_row_of(a, place.part, place.tile), lane_id());
  const int used = (item.count + 7) / 8;
  float y[kManyTiles][4] = {};
  for (int shard = 0; shard < a.n_shards; ++shard) {
    const int64_t begin = shard * a.shard_blocks;
    const int64_t end = begin + a.shard_blocks < a.blocks ? begin + a.shard_blocks : a.blocks;
    float sums[kManyTiles][4] = {};
    for (int64_t b = begin; b < end; b += Format::kStaged) {
      const int64_t last = b + Format::kStaged < end ? b + Format::kStaged : end;
      Format::stage(a, item, b, last, used * 8);
      multiply_staged<Format>(weights, b, last, used, sums);
    }
    GLM_UNROLL
    for (int t = 0; t < kManyTiles; ++t) GLM_UNROLL
    for (int i = 0; i < 4; ++i) y[t][i] = shard == 0 ? sums[t][i] : y[t][i] + sums[t][i];
  }
  store_many(a, item, place, y);
}

// ---- launches

template <class Format>
void product(const ProductArgs& a, int tile, int64_t n_items, Stream stream, const char* name) {
  const int64_t outputs = (a.width + kRowTile - 1) / kRowTile;
  const int parts = a.gated ? 2 : 1;
  if (tile <= kFewInputs) {
    const int units = parts * a.n_shards;
    const int warps = units < 1 ? 1 : (units < kFewWarps ? units : kFewWarps);
    launch(name,
           tile == 8 ? few_inputs<Format, 1> : few_inputs<Format, 2>,
           {outputs, n_items},
           warps * 32,
           few_shared_bytes(a, tile),
           stream,
           a);
    return;
  }
  const int64_t tiles = kManyWarps / parts;
  const size_t up_bytes = sizeof(float) * kTileInputs * kRowTile * 2;
  const size_t staged_bytes = Format::kStaged * Format::kStagedBytes;
  launch(name,
         many_inputs<Format>,
         {(outputs + tiles - 1) / tiles, n_items},
         kManyWarps * 32,
         staged_bytes > up_bytes ? staged_bytes : up_bytes,
         stream,
         a);
}

}  // namespace glm::GLM_CUDA_SPACE
