// The vocabulary of the operations: weights, the paged KV cache, the rows of a step, routing. Views
// only; owners are core/model/weights and core/model/kv_cache. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/tensor.h"

namespace glm {

// A stack of equally shaped matrices [n_matrices, rows, cols] (n_matrices = experts, else 1), y = x
// W^T. This rank's share; any dtype of DType but i32 and u8. Quantised: two planes, packing as in
// core/base/dtype.h.
struct Weight {
  DType dtype = DType::kF32;
  Packing packing = Packing::kRows;
  int64_t n_matrices = 1;
  int64_t rows = 0;
  int64_t cols = 0;
  const void* values = nullptr;
  const void* scales = nullptr;  // f16, quantised types only

  int64_t value_stride() const { return value_bytes(dtype, rows, cols); }  // bytes of one matrix
  int64_t scale_stride() const { return scale_bytes(dtype, rows, cols); }
  int64_t bytes() const { return n_matrices * (value_stride() + scale_stride()); }
};

// Heads on this rank inside one row of the qkv buffer [T, (n_heads + 2 n_kv_heads) head_dim]: query
// heads, then key heads, then value heads. Local query head j reads local key-value head
// (first_head + j) / ratio, so that borders of ranks may fall inside a group of heads that share
// keys.
struct HeadLayout {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int ratio = 1;       // query heads per key-value head, of the whole model
  int first_head = 0;  // of local query head 0 within its group, 0 <= first_head < ratio

  int64_t row_width() const { return int64_t{n_heads + 2 * n_kv_heads} * head_dim; }
  int kv_head_of(int head) const { return (first_head + head) / ratio; }
};

// Which elements of a head turn together (MODELS: glm and glm4 interleave, glm4_moe, llama and
// qwen3 split in halves).
enum class RopePairing : uint8_t { kInterleaved, kHalfSplit };

enum class KvDType : uint8_t { kF32, kF16, kQ8 };
std::string_view kv_dtype_name(KvDType dtype);
std::optional<KvDType> parse_kv_dtype(std::string_view name);

// Positions in one block (page) of the cache.
inline constexpr int kKvBlockTokens = 16;

// The cache of one layer on this rank: n_blocks pages of 16 positions for keys and for values each.
// Order inside a page belongs to the backend (kernels/cpu/kv_page.h); everybody else knows only its
// size.
struct KvLayer {
  KvDType dtype = KvDType::kF32;
  int n_kv_heads = 0;
  int head_dim = 0;
  int64_t n_blocks = 0;
  void* keys = nullptr;
  void* values = nullptr;

  // Bytes of one page of keys (values take the same): q8 holds i8 and one f32 scale per position,
  // head and 32 elements.
  static int64_t page_bytes(KvDType dtype, int n_kv_heads, int head_dim);
};

// One sequence's part of a step. Its rows are neighbours in the batch and continue the cache at
// `position`.
struct SequenceSpan {
  int32_t first_row = 0;
  int32_t n_rows = 0;
  int32_t position = 0;     // positions in the cache before this step
  int32_t first_block = 0;  // of the sequence's pages in block_table
};

// What is done to queries and keys on their way to attention.
struct HeadTurn {
  Tensor q_norm, k_norm;  // [head_dim] f32, or absent
  float eps = 0.0f;       // of the norms
  Tensor table;           // of Ops::rope_table
  RopePairing pairing = RopePairing::kHalfSplit;
};

// The rows of one step, on the device. Row i has token ids[i], stands at positions[i] of its
// sequence, and its key and value go to cache slot slots[i] = page * 16 + offset. Absent tensors
// where a stage does not need them.
struct BatchRows {
  int n_rows = 0;
  int n_spans = 0;
  int max_context = 0;  // largest position + n_rows of a span, or more
  Tensor ids;           // [n_rows] i32
  Tensor positions;     // [n_rows] i32
  Tensor slots;         // [n_rows] i32
  Tensor spans;         // [n_spans, 4] i32, the fields of SequenceSpan
  Tensor block_table;   // [total pages of all spans] i32
};

// Rows that all go to every one of `ranks` ranks, rank after rank: row t of T stands at p * T + t
// for rank p.
struct RowCopies {
  Tensor index;    // [ranks * T] i32: which row
  Tensor routing;  // [ranks * T, 2 top_k] i32: its experts there, -1 for others, then weights as
                   // bits, 0 for others
  Tensor places;   // [T, most] i32: where row t stands for ranks that hold an expert of its,
                   // ascending, -1 behind them
};

enum class RouterKind : uint8_t { kSigmoid, kSoftmax };

// Names of config.json in comments.
struct RouterConfig {
  RouterKind kind = RouterKind::kSigmoid;
  int n_experts = 0;      // n_routed_experts
  int top_k = 0;          // num_experts_per_tok
  int n_group = 1;        // n_group
  int topk_group = 1;     // topk_group
  bool norm_topk = true;  // norm_topk_prob
  float scale = 1.0f;     // routed_scaling_factor
};

// Rows of a step sorted by the local expert that processes them (stable: ascending row within an
// expert). An assignment is a (row, expert) pair; assignments are numbered 0..n-1 in expert order.
struct ExpertGroups {
  int n_experts = 0;     // local experts
  int64_t capacity = 0;  // rows of a buffer that holds any outcome: x rows * top_k
  Tensor offsets;  // [n_experts + 1] i32: assignments of expert e are [offsets[e], offsets[e + 1])
  Tensor rows;     // [capacity] i32: row of x of each assignment
  Tensor order;  // [x rows, top_k] i32: assignments of a row, ascending in expert index, -1 behind
                 // the last
  Tensor weights;  // [x rows, top_k] f32: routing weight of each entry of `order`
};

}  // namespace glm
