// The table of inner loops of one instruction set. Each set is one translation unit (isa_*.cpp)
// compiled with its own flags, with all its code in a namespace of its own, so that the linker can
// never hand a function compiled for a newer processor to everybody. All sets give the same bits
// (docs/numerics.md). Only plain structs here: this header is read by those units.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace glm {

// 32 columns of an input row of a quantised product: x = d * q, and -8 times the sum of q, from
// which an integer dot product with unsigned nibbles starts.
struct QuantBlock {
  int8_t q[32];
  float d;
  int32_t minus_8_sum;
};

inline constexpr int kMaxTileInputs = 16;    // input rows of one call
inline constexpr int kMaxQueries = 16;       // (row, head) pairs of one attention call
inline constexpr int kSplitPositions = 256;  // positions of a split of the cache

// 16 rows of a quantised matrix (a row of tiles, core/base/dtype.h) times n_inputs rows.
struct TileProduct {
  const uint8_t* values;
  const uint16_t* scales;
  int64_t blocks;
  int64_t shard_blocks;
  const QuantBlock* const* inputs;
  int n_inputs;
  float* out;  // [n_inputs][16]
};

// Up to 16 neighbouring rows of a plain matrix times n_inputs rows.
struct RowProduct {
  const void* values;
  int n_rows;
  int64_t cols;
  int64_t shard_cols;
  const float* const* inputs;
  int n_inputs;
  float* out;  // [n_inputs][16]
};

// Queries that share a key-value head over one split of its cache. Query i sees limits[i] positions
// of the split (0..256). Results: largest score, sum of exp(score - largest), and the sum of exp *
// value (each query's in `stride` floats, a multiple of 16).
struct SplitAttention {
  const uint8_t* keys;  // plane of the layer
  const uint8_t* values;
  const int32_t* pages;  // from the split's first on
  int n_pages;           // of the sequence from there on
  int64_t page_bytes;
  int64_t head_bytes;         // of the head's elements inside a page
  int64_t key_scale_bytes;    // q8: of the head's scales inside a page
  int64_t value_scale_bytes;  // q8
  int head_dim;
  float scale;
  int n_queries;
  const float* const* queries;
  const int32_t* limits;
  float* scores;  // [n_queries][256] scratch
  float* sums;    // [n_queries][stride]
  int64_t stride;
  float* largest;  // [n_queries]
  float* totals;   // [n_queries]
};

struct KernelTable {
  const char* name;
  void (*quantize_row)(const float* x, int64_t blocks, QuantBlock* out);
  void (*tile_q40)(const TileProduct& product);
  void (*tile_q80)(const TileProduct& product);
  void (*rows_f32)(const RowProduct& product);
  void (*rows_f16)(const RowProduct& product);
  void (*rows_bf16)(const RowProduct& product);
  void (*norm_row)(const float* x, const float* weight, int64_t n, float eps, float* out);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  void (*sigmoid)(const float* x, int64_t n, float* out);
  void (*softmax)(const float* x, int64_t n, float* out);
  void (*attend_f32)(const SplitAttention& split);
  void (*attend_f16)(const SplitAttention& split);
  void (*attend_q8)(const SplitAttention& split);
  // Adds a split to a running result of the same form; splits come in ascending order. The first
  // one meets largest = -inf, total = 0, sums = 0. n is a multiple of 16.
  void (*merge_split)(float* largest,
                      float* total,
                      float* sums,
                      float split_largest,
                      float split_total,
                      const float* split_sums,
                      int64_t n);
  // out[i] = sums[i] / total.
  void (*divide)(const float* sums, float total, int64_t n, float* out);
  // Roofs (kernels/roof.h): the sum of 8-byte words, bytes % 256 == 0; and `steps` rounds of
  // independent int8 dot products in registers, returning the operations done.
  uint64_t (*sum_words)(const uint8_t* p, int64_t bytes);
  int64_t (*int8_peak)(int64_t steps);
};

const KernelTable* scalar_kernels();
const KernelTable* avx2_kernels();    // AVX2, FMA, F16C
const KernelTable* avx512_kernels();  // AVX-512 F, BW, VL, DQ
const KernelTable* vnni_kernels();    // the same and VNNI

}  // namespace glm
