// Attention over the paged key-value cache, operation by operation as on the CPU
// (kernels/cpu/isa_body.h): splits of 256 absolute positions, merged in ascending order. A block
// has one row of a step and the query heads that share a key-value head, so that a key or value is
// read once for all of them. With few rows the splits of a row are blocks of their own and are
// merged by merge_splits; with many rows a block walks its row's splits. The bits are the same.
// attention_tiles.cu takes over sequences with many rows where it may.
// Pages are those of kernels/cpu/kv_page.h: keys [head][element][16], values [head][16][element].
// SPDX-License-Identifier: MIT
#include "kernels/cuda/kv.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;  // one for each position of a split

// Loads of keys or values that a thread starts at once; more would not fit its registers.
template <int kHeads>
constexpr int kLoads = kHeads > 12 ? 4 : 8;
// Blocks per multiprocessor that registers have to suffice for.
template <int kHeads>
constexpr int kResident = kHeads > 12 ? 1 : 2;

// What a block works on: query heads [first_head, + n_heads) of row `row`, which sees `visible`
// positions of the pages.
struct Unit {
  int64_t row;
  int kv_head;
  int first_head;
  int n_heads;
  int visible;
  const int32_t* pages;
};

// Somebody else's.
GLM_DEVICE bool in_tiles(const AttentionArgs& a, const int32_t* span) {
  return a.tile_rows > 0 && span[1] >= a.tile_rows;
}

GLM_DEVICE Unit unit_of(const AttentionArgs& a) {
  Unit u{};
  u.row = blockIdx.z;
  u.kv_head = static_cast<int>(blockIdx.x) / a.chunks;
  const int chunk = static_cast<int>(blockIdx.x) % a.chunks;
  const int group = u.kv_head * a.ratio - a.first_head;  // its first head, maybe of another rank
  const int begin = group + chunk * a.heads_per_block;
  const int most =
      begin + a.heads_per_block < group + a.ratio ? begin + a.heads_per_block : group + a.ratio;
  const int end = most < a.n_heads ? most : a.n_heads;
  u.first_head = begin > 0 ? begin : 0;
  u.n_heads = end - u.first_head;
  for (int s = 0; s < a.n_spans; ++s) {
    const int32_t* span = a.spans + 4 * s;  // first row, rows, position, first page
    if (u.row < span[0] || u.row >= span[0] + span[1] || in_tiles(a, span)) continue;
    u.visible = span[2] + static_cast<int>(u.row) - span[0] + 1;
    u.pages = a.block_table + span[3];
  }
  return u;
}

// Shared memory of a block.
template <int kHeads>
struct Memory {
  float* queries;  // [head_dim][kHeads]
  float* scores;   // [256][kHeads], then exp of them
  float* running;  // [kHeads][head_dim]
  float* largest;  // [kHeads] of a split
  float* totals;   // [kHeads] of a split
  float* running_largest;
  float* running_total;
  float* old_weight;
  float* new_weight;

  static GLM_DEVICE Memory in_shared(int head_dim) {
    Memory m;
    m.queries = shared_as<float>();
    m.scores = m.queries + head_dim * kHeads;
    m.running = m.scores + kSplitLength * kHeads;
    m.largest = m.running + head_dim * kHeads;
    m.totals = m.largest + kHeads;
    m.running_largest = m.totals + kHeads;
    m.running_total = m.running_largest + kHeads;
    m.old_weight = m.running_total + kHeads;
    m.new_weight = m.old_weight + kHeads;
    return m;
  }
  static size_t bytes(int head_dim) {
    return sizeof(float) * kHeads * static_cast<size_t>(2 * head_dim + kSplitLength + 6);
  }
};

// Scores of this thread's position with all heads.
template <KvPlane kPlane, int kHeads>
GLM_DEVICE void score_position(const AttentionArgs& a,
                               const Unit& u,
                               const Memory<kHeads>& m,
                               int position,
                               float (&scores)[kHeads]) {
  using Type = typename Element<kPlane>::Type;
  const uint8_t* page = a.keys + u.pages[position / kPagePositions] * a.page_bytes;
  const int offset = position % kPagePositions;
  const auto* keys = reinterpret_cast<const Type*>(page) +
                     int64_t{u.kv_head} * a.head_dim * kPagePositions + offset;
  GLM_UNROLL
  for (int h = 0; h < kHeads; ++h) scores[h] = 0.0f;
  if constexpr (kPlane == KvPlane::kQ8) {
    const int groups = (a.head_dim + kGroup - 1) / kGroup;
    const float* scales = reinterpret_cast<const float*>(page + a.scale_bytes) +
                          int64_t{u.kv_head} * groups * kPagePositions + offset;
    for (int g = 0; g < groups; ++g) {
      const int end = (g + 1) * kGroup < a.head_dim ? (g + 1) * kGroup : a.head_dim;
      float sums[kHeads] = {};
      GLM_UNROLL_BY(kLoads<kHeads>)
      for (int d = g * kGroup; d < end; ++d) {
        const float key = Element<kPlane>::value(keys[d * kPagePositions]);
        GLM_UNROLL
        for (int h = 0; h < kHeads; ++h) sums[h] = fused(m.queries[d * kHeads + h], key, sums[h]);
      }
      const float scale = scales[g * kPagePositions];
      GLM_UNROLL
      for (int h = 0; h < kHeads; ++h) scores[h] = fused(sums[h], scale, scores[h]);
    }
  } else {
    GLM_UNROLL_BY(kLoads<kHeads>)
    for (int d = 0; d < a.head_dim; ++d) {
      const float key = Element<kPlane>::value(keys[d * kPagePositions]);
      GLM_UNROLL
      for (int h = 0; h < kHeads; ++h) scores[h] = fused(m.queries[d * kHeads + h], key, scores[h]);
    }
  }
}

// From scores to exp(score - largest), their largest and their sums.
template <int kHeads>
GLM_DEVICE void weigh_split(const Memory<kHeads>& m, int seen) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = lane_id();
  for (int h = thread / 32; h < kHeads; h += kThreads / 32) {
    float top = lowest();
    for (int p = lane; p < kSplitLength; p += 32) {
      const float score = m.scores[p * kHeads + h];
      top = top > score ? top : score;
    }
    for (int step = 16; step > 0; step /= 2) {
      const float other = shuffle_xor(top, step);
      top = top > other ? top : other;
    }
    if (lane == 0) m.largest[h] = top;
  }
  __syncthreads();
  GLM_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    const float score = m.scores[thread * kHeads + h];
    m.scores[thread * kHeads + h] = thread < seen ? exp_of(score - m.largest[h]) : 0.0f;
  }
  __syncthreads();
  // Sixteen lanes to a head, one for each sum.
  const int h = thread / 16;
  const int j = thread % 16;
  float total = 0.0f;
  if (h < kHeads)
    for (int p = j; p < kSplitLength; p += 16) total = total + m.scores[p * kHeads + h];
  for (int step = 8; step > 0; step /= 2) total = total + shuffle_xor(total, step);
  if (h < kHeads && j == 0) m.totals[h] = total;
}

// Calls visit(head, element, sum of exp * value over the split's positions): kOwn heads a thread,
// all or half of them, as many threads as a vector has elements.
template <KvPlane kPlane, int kHeads, int kOwn, class Visit>
GLM_DEVICE void add_values(const AttentionArgs& a,
                           const Unit& u,
                           const Memory<kHeads>& m,
                           int split,
                           int seen,
                           Visit visit) {
  using Type = typename Element<kPlane>::Type;
  constexpr int kStep = kOwn == kHeads ? kThreads : kThreads / 2;
  const int first_head = static_cast<int>(threadIdx.x) / kStep * kOwn;
  const int groups = (a.head_dim + kGroup - 1) / kGroup;
  const int32_t* pages = u.pages + split * (kSplitLength / kPagePositions);
  for (int dim = static_cast<int>(threadIdx.x) % kStep; dim < a.head_dim; dim += kStep) {
    float sums[kOwn] = {};
    for (int first = 0; first < seen; first += kPagePositions) {
      const uint8_t* page = a.values + pages[first / kPagePositions] * a.page_bytes;
      const int64_t vector = int64_t{u.kv_head} * kPagePositions;
      const auto* values = reinterpret_cast<const Type*>(page) + vector * a.head_dim + dim;
      const float* scales =
          reinterpret_cast<const float*>(page + a.scale_bytes) + vector * groups + dim / kGroup;
      const int n = seen - first < kPagePositions ? seen - first : kPagePositions;
      GLM_UNROLL_BY(kLoads<kHeads>)
      for (int p = 0; p < n; ++p) {
        float value = Element<kPlane>::value(values[int64_t{p} * a.head_dim]);
        if constexpr (kPlane == KvPlane::kQ8) value = value * scales[p * groups];
        const float* weights = m.scores + (first + p) * kHeads + first_head;
        GLM_UNROLL
        for (int h = 0; h < kOwn; ++h) sums[h] = fused(weights[h], value, sums[h]);
      }
    }
    GLM_UNROLL
    for (int h = 0; h < kOwn; ++h) visit(first_head + h, dim, sums[h]);
  }
}

template <KvPlane kPlane, int kHeads, class Visit>
GLM_DEVICE void each_value(const AttentionArgs& a,
                           const Unit& u,
                           const Memory<kHeads>& m,
                           int split,
                           int seen,
                           Visit visit) {
  if (a.head_dim > kThreads / 2)
    add_values<kPlane, kHeads, kHeads>(a, u, m, split, seen, visit);
  else
    add_values<kPlane, kHeads, kHeads / 2>(a, u, m, split, seen, visit);
}

// Where the running result and a split's meet (kernels/cpu/isa_body.h, merge_split).
struct Merge {
  float largest;
  float old_weight;
  float new_weight;

  static GLM_DEVICE Merge of(float largest, float split_largest) {
    const float top = largest > split_largest ? largest : split_largest;
    return {top, exp_of(largest - top), exp_of(split_largest - top)};
  }
};

template <int kHeads>
GLM_DEVICE void begin_unit(const AttentionArgs& a, const Unit& u, const Memory<kHeads>& m) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int n = thread; n < kHeads * a.head_dim; n += kThreads) {
    const int h = n / a.head_dim;
    const int dim = n % a.head_dim;
    const int64_t head = u.first_head + (h < u.n_heads ? h : 0);
    m.queries[dim * kHeads + h] = a.qkv[u.row * a.row_width + head * a.head_dim + dim];
    m.running[n] = 0.0f;
  }
  if (thread < kHeads) {
    m.running_largest[thread] = lowest();
    m.running_total[thread] = 0.0f;
  }
  __syncthreads();
}

// One split: weights in shared memory, its largest scores and totals.
template <KvPlane kPlane, int kHeads>
GLM_DEVICE int score_split(const AttentionArgs& a,
                           const Unit& u,
                           const Memory<kHeads>& m,
                           int split) {
  const int thread = static_cast<int>(threadIdx.x);
  const int begin = split * kSplitLength;
  const int seen = u.visible - begin < kSplitLength ? u.visible - begin : kSplitLength;
  float scores[kHeads];
  if (thread < seen) score_position<kPlane, kHeads>(a, u, m, begin + thread, scores);
  GLM_UNROLL
  for (int h = 0; h < kHeads; ++h)
    m.scores[thread * kHeads + h] = thread < seen ? scores[h] * a.scale : lowest();
  __syncthreads();
  weigh_split<kHeads>(m, seen);
  __syncthreads();
  return seen;
}

// Adds a split to the running result in shared memory.
template <KvPlane kPlane, int kHeads>
GLM_DEVICE void merge_into_running(
    const AttentionArgs& a, const Unit& u, const Memory<kHeads>& m, int split, int seen) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kHeads) {
    const Merge merge = Merge::of(m.running_largest[thread], m.largest[thread]);
    m.running_largest[thread] = merge.largest;
    m.running_total[thread] =
        m.running_total[thread] * merge.old_weight + m.totals[thread] * merge.new_weight;
    m.old_weight[thread] = merge.old_weight;
    m.new_weight[thread] = merge.new_weight;
  }
  __syncthreads();
  each_value<kPlane, kHeads>(a, u, m, split, seen, [&](int h, int dim, float sum) {
    float& running = m.running[h * a.head_dim + dim];
    running = running * m.old_weight[h] + sum * m.new_weight[h];
  });
  __syncthreads();
}

template <KvPlane kPlane, int kHeads>
__global__ void GLM_BOUNDS(kThreads, kResident<kHeads>) attend_rows(AttentionArgs a) {
  const Unit u = unit_of(a);
  if (u.n_heads <= 0 || u.visible <= 0) return;
  const auto m = Memory<kHeads>::in_shared(a.head_dim);
  begin_unit<kHeads>(a, u, m);
  for (int split = 0; split * kSplitLength < u.visible; ++split) {
    const int seen = score_split<kPlane, kHeads>(a, u, m, split);
    merge_into_running<kPlane, kHeads>(a, u, m, split, seen);
  }
  for (int n = static_cast<int>(threadIdx.x); n < u.n_heads * a.head_dim; n += kThreads)
    a.out[(u.row * a.n_heads + u.first_head) * a.head_dim + n] =
        quotient(m.running[n], m.running_total[n / a.head_dim]);
}

GLM_DEVICE float* partial_of(const AttentionArgs& a, int64_t row, int head, int split) {
  return a.partials + ((row * a.n_heads + head) * a.n_splits + split) * (2 + int64_t{a.head_dim});
}

template <KvPlane kPlane, int kHeads>
__global__ void GLM_BOUNDS(kThreads, kResident<kHeads>) attend_splits(AttentionArgs a) {
  const Unit u = unit_of(a);
  const int split = static_cast<int>(blockIdx.y);
  if (u.n_heads <= 0 || split * kSplitLength >= u.visible) return;
  const auto m = Memory<kHeads>::in_shared(a.head_dim);
  begin_unit<kHeads>(a, u, m);
  const int seen = score_split<kPlane, kHeads>(a, u, m, split);
  float* first = partial_of(a, u.row, u.first_head, split);
  const int64_t step = partial_of(a, u.row, u.first_head + 1, split) - first;
  each_value<kPlane, kHeads>(a, u, m, split, seen, [&](int head, int dim, float sum) {
    if (head < u.n_heads) first[head * step + 2 + dim] = sum;
  });
  const int h = static_cast<int>(threadIdx.x);
  if (h < u.n_heads) {
    first[h * step] = m.largest[h];
    first[h * step + 1] = m.totals[h];
  }
}

// A block per row and head.
__global__ void merge_splits(AttentionArgs a) {
  const int head = static_cast<int>(blockIdx.x);
  const int64_t row = blockIdx.z;
  int visible = 0;
  for (int s = 0; s < a.n_spans; ++s) {
    const int32_t* span = a.spans + 4 * s;
    if (row >= span[0] && row < span[0] + span[1] && !in_tiles(a, span))
      visible = span[2] + static_cast<int>(row) - span[0] + 1;
  }
  for (int dim = static_cast<int>(threadIdx.x); dim < a.head_dim;
       dim += static_cast<int>(blockDim.x)) {
    float largest = lowest();
    float total = 0.0f;
    float sum = 0.0f;
    for (int split = 0; split * kSplitLength < visible; ++split) {
      const float* partial = partial_of(a, row, head, split);
      const Merge merge = Merge::of(largest, partial[0]);
      largest = merge.largest;
      total = total * merge.old_weight + partial[1] * merge.new_weight;
      sum = sum * merge.old_weight + partial[2 + dim] * merge.new_weight;
    }
    if (visible > 0) a.out[(row * a.n_heads + head) * a.head_dim + dim] = quotient(sum, total);
  }
}

template <KvPlane kPlane, int kHeads>
void attend(const AttentionArgs& a, int64_t n_rows, Stream stream) {
  const int64_t units = int64_t{a.n_kv_heads} * a.chunks;
  const size_t bytes = Memory<kHeads>::bytes(a.head_dim);
  if (a.partials == nullptr) {
    launch(
        "attention", attend_rows<kPlane, kHeads>, {units, 1, n_rows}, kThreads, bytes, stream, a);
    return;
  }
  launch("attention splits",
         attend_splits<kPlane, kHeads>,
         {units, a.n_splits, n_rows},
         kThreads,
         bytes,
         stream,
         a);
  launch("merge splits", merge_splits, {a.n_heads, 1, n_rows}, 128, 0, stream, a);
}

template <KvPlane kPlane>
void attend_heads(const AttentionArgs& a, int64_t n_rows, Stream stream) {
  if (a.heads_per_block <= 4)
    attend<kPlane, 4>(a, n_rows, stream);
  else if (a.heads_per_block <= 12)
    attend<kPlane, 12>(a, n_rows, stream);
  else
    attend<kPlane, kMaxHeadsOfBlock>(a, n_rows, stream);
}

}  // namespace

void attention(const AttentionArgs& args, KvPlane plane, int64_t n_rows, Stream stream) {
  if (plane == KvPlane::kF32)
    attend_heads<KvPlane::kF32>(args, n_rows, stream);
  else if (plane == KvPlane::kF16)
    attend_heads<KvPlane::kF16>(args, n_rows, stream);
  else
    attend_heads<KvPlane::kQ8>(args, n_rows, stream);
}

}  // namespace glm::GLM_CUDA_SPACE
