// What the host side of the CUDA operations (cuda_ops.cpp, compiled as C++) asks of the units with
// kernels (*.cu): plain structs of pointers to device memory, and one function per launch. Nothing
// here waits, allocates or looks at data. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

// Kernels for a GPU and kernels on the emulator may be in one program.
#if defined(GLM_CUDA_EMULATED)
#define GLM_CUDA_SPACE cuda_emulated
#else
#define GLM_CUDA_SPACE cuda
#endif

namespace glm::GLM_CUDA_SPACE {

// A cudaStream_t; on the emulator an emulator::Queue*.
using Stream = void*;

// Throws glm::Error; defined in cuda_ops.cpp.
[[noreturn]] void launch_failed(const char* kernel, const char* error);

// Planes of a matrix as the kernels see them.
enum class Plane : uint8_t { kF32, kF16, kBF16, kQ80, kQ40 };

// ---- rows.cu

struct EmbedArgs {
  float* out;
  const int32_t* ids;
  const void* values;
  const uint16_t* scales;
  Plane plane;
  bool tiles;
  int64_t rows;  // of the table
  int64_t cols;
  int64_t first_row;
};
void embed(const EmbedArgs& args, int64_t n_rows, Stream stream);

struct NormArgs {
  float* out;
  float* x;
  const float* y;  // added to x first, or absent
  const float* weight;
  int64_t cols;
  float eps;
};
void rms_norm(const NormArgs& args, int64_t n_rows, Stream stream);

struct RopeTableArgs {
  float* out;
  const int32_t* positions;
  const float* inv_freq;
  int half;
};
void rope_table(const RopeTableArgs& args, int64_t n_rows, Stream stream);

struct GatherArgs {
  uint32_t* out;
  const uint32_t* x;
  const int32_t* index;
  int64_t x_rows;
  int64_t cols;
};
void gather_rows(const GatherArgs& args, int64_t n_rows, Stream stream);

struct AddArgs {
  float* x;
  const float* y;
  int64_t n;
};
void add(const AddArgs& args, Stream stream);

// Columns [to, to + width) of out; in holds [n_rows, width] from in_first on.
struct Slice {
  int64_t in_first;
  int64_t to;
  int64_t width;
};
inline constexpr int kMaxSlices = 16;
struct ConcatArgs {
  float* out;
  const float* in;
  int64_t out_cols;
  int64_t n_rows;
  Slice slices[kMaxSlices];
};
void concat_columns(const ConcatArgs& args, int n_slices, Stream stream);

struct PadArgs {
  float* out;
  const float* in;
  int64_t out_cols;
  int64_t in_cols;
  int64_t first;
};
void pad_columns(const PadArgs& args, int64_t n_rows, Stream stream);

// ---- random.cu

// Rows [first, first + count) of each matrix of a weight (kernels/random_rows.h).
struct RandomArgs {
  uint8_t* values;
  uint16_t* scales;
  int64_t value_stride;  // bytes of a matrix
  int64_t scale_stride;  // f16 of a matrix
  int64_t first;
  int64_t count;
  int64_t cols;
  Plane plane;
  bool tiles;
  uint64_t key;
  float low;
  float width;
  int64_t all_rows;  // of the whole tensor
  int64_t all_cols;
  bool alternate;
  int64_t from_matrix;
  int64_t from_row;
  int64_t from_col;
};
void fill_random(const RandomArgs& args, int64_t n_matrices, Stream stream);

// ---- moe.cu

struct RouteArgs {
  int32_t* experts;
  float* weights;
  const float* logits;
  const float* bias;
  int n_experts;
  int top_k;
  int n_group;
  int topk_group;
  float scale;
  bool sigmoid;
  bool norm_topk;
};
inline constexpr int kMaxExperts = 1024;
void route(const RouteArgs& args, int64_t n_rows, Stream stream);

struct GroupArgs {
  int32_t* offsets;
  int32_t* rows;
  int32_t* order;
  float* order_weights;
  const int32_t* experts;
  const float* weights;
  int64_t n_rows;
  int top_k;
  int n_experts;
  int first_expert;
};
void group_rows(const GroupArgs& args, Stream stream);

struct CopyArgs {
  int32_t* index;
  int32_t* routing;
  int32_t* places;
  const int32_t* experts;
  const float* weights;
  const int32_t* borders;
  int64_t n_rows;
  int64_t most;
  int top_k;
  int slices;
  int n_ranks;
};
void copy_rows(const CopyArgs& args, Stream stream);

struct SplitArgs {
  int32_t* experts;
  float* weights;
  const int32_t* routing;
  int64_t n;  // entries of experts
  int top_k;
};
void split_routing(const SplitArgs& args, Stream stream);

struct CombineArgs {
  float* out;
  const float* rows;
  const float* addend;  // of the size of out, or absent
  const int32_t* order;
  const float* weights;
  int64_t cols;
  int top_k;
};
void combine(const CombineArgs& args, int64_t n_rows, Stream stream);

// ---- products.cu, plain_products.cu

// Inputs [first, first + count) of a stack's matrix, for the blocks of one grid row.
struct WorkItem {
  int32_t matrix;
  int32_t first;
  int32_t count;
};

// Scale of 32 quantised inputs, and -8 times their sum, where sums over unsigned nibbles start.
struct QuantScale {
  float d;
  int32_t minus_8_sum;
};

// Quantises rows of x (32 columns a block) and lists the work of a stack of matrices.
struct PrepareArgs {
  const float* x;
  uint8_t* q;          // [n_rows][blocks][32 bytes], order in products.h; absent: no rows
  QuantScale* scales;  // [n_rows][blocks]
  int64_t n_rows;
  int64_t blocks;
  const int32_t* offsets;  // of experts; absent: no list
  int n_experts;
  int tile;  // inputs of an item at most
  WorkItem* items;
  int32_t* n_items;
};
void prepare(const PrepareArgs& args, Stream stream);

struct ProductArgs {
  const uint8_t* values;
  const uint16_t* scales;
  int64_t value_stride;  // bytes of a matrix
  int64_t scale_stride;  // f16 of a matrix
  int64_t rows;          // of a matrix
  int64_t cols;
  int64_t blocks;        // of 32 columns
  int64_t shard_blocks;  // of a shard
  int n_shards;
  bool tiles;    // Packing::kTile16
  bool aligned;  // rows of plain values and of x begin at multiples of 16 bytes
  bool gated;
  const float* x;
  const uint8_t* q;
  const QuantScale* input_scales;
  const int32_t* index;   // input row of each output row, or absent
  const WorkItem* items;  // or absent: all inputs meet matrix 0
  const int32_t* n_items;
  int64_t n_inputs;
  int64_t width;  // outputs of a row
  const float* bias;
  float* out;  // [inputs][width]
};
inline constexpr int kFewInputs = 16;   // up to here weights go from memory to registers
inline constexpr int kTileInputs = 64;  // inputs of a block beyond
// Inputs of one item for `n` inputs.
int product_tile(Plane plane, int64_t n);
// n_items: grid rows to launch, at least as many as there will be items.
void quantized_product(const ProductArgs& args, Plane plane, int tile, int64_t n_items, Stream s);
void plain_product(const ProductArgs& args, Plane plane, int tile, int64_t n_items, Stream s);

// ---- dense.cu

// Cuts rows into two parts each, high + low, of bf16, or with scales of f16 times a power of two:
// scales[row] undoes it.
struct CutArgs {
  const float* x;
  uint16_t* high;
  uint16_t* low;
  float* scales;  // absent: bf16
  int64_t cols;
};
void cut_rows(const CutArgs& args, int64_t n_rows, Stream stream);

// Outputs from sums of products, [row][width], or [row][gate and up][width] with `gated`.
struct FinishArgs {
  float* out;  // may be sums, unless gated
  const float* sums;
  const float* scales;  // of rows, or absent
  const float* bias;    // or absent
  int64_t width;
  bool gated;
};
void finish_rows_of_sums(const FinishArgs& args, int64_t n_rows, Stream stream);

// ---- heads.cu

enum class KvPlane : uint8_t { kF32, kF16, kQ8 };
inline constexpr int kPagePositions = 16;

struct HeadNormArgs {
  float* qkv;
  const float* weight;
  int64_t row_width;
  int first_head;
  int n_heads;
  int head_dim;
  float eps;
};
void head_norm(const HeadNormArgs& args, int64_t n_rows, Stream stream);

struct RopeArgs {
  float* qkv;
  const float* table;
  int64_t row_width;
  int n_heads;  // that turn: queries and keys
  int head_dim;
  int half;
  bool interleaved;
};
void rope(const RopeArgs& args, int64_t n_rows, Stream stream);

struct StoreArgs {
  const float* qkv;
  const int32_t* slots;
  uint8_t* keys;
  uint8_t* values;
  int64_t row_width;
  int64_t page_bytes;
  int64_t scale_bytes;  // q8: where the scales of a page begin
  int64_t n_slots;
  int n_heads;
  int n_kv_heads;
  int head_dim;
};
void store_kv(const StoreArgs& args, KvPlane plane, int64_t n_rows, Stream stream);

// Norms, rotation and the cache at once.
struct HeadsArgs {
  StoreArgs store;
  float* qkv;           // the same as store.qkv
  const float* q_norm;  // or absent
  const float* k_norm;
  const float* table;
  float eps;
  int half;
  bool interleaved;
};
void place_heads(const HeadsArgs& args, KvPlane plane, int64_t n_rows, Stream stream);

// ---- attention.cu, attention_tiles.cu

inline constexpr int kSplitLength = 256;  // positions
inline constexpr int kMaxHeadsOfBlock = 16;
// Rows of a sequence in a step from which they are worth tiles on tensor cores: 32 rows of 12 heads
// are six blocks for each key-value head.
inline constexpr int kTileRows = 32;
inline constexpr int kMaxTileDim = 128;  // widest head that tiles take

struct AttentionArgs {
  float* out;
  const float* qkv;
  const uint8_t* keys;
  const uint8_t* values;
  const int32_t* spans;  // [n_spans][4]
  const int32_t* block_table;
  int64_t row_width;
  int64_t page_bytes;
  int64_t scale_bytes;
  int n_spans;
  int n_heads;
  int n_kv_heads;
  int head_dim;
  int ratio;
  int first_head;
  int chunks;           // blocks that share a group of heads
  int heads_per_block;  // of one group, at most kMaxHeadsOfBlock
  float scale;
  int n_splits;     // of the longest row
  float* partials;  // [row][head][split][2 + head_dim], or absent: a block walks all splits
  int tile_rows;    // spans of so many rows and more belong to attention_tiles(); 0: none do
};
void attention(const AttentionArgs& args, KvPlane plane, int64_t n_rows, Stream stream);
void attention_tiles(const AttentionArgs& args, KvPlane plane, int64_t n_rows, Stream stream);

}  // namespace glm::GLM_CUDA_SPACE
