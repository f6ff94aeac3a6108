// Attention of many neighbouring rows on tensor cores: a block has 64 queries (pairs of a row and a
// head that shares the block's key-value head) and walks tiles of 64 positions, which begin at
// absolute multiples of 64, with a running maximum per query (docs/numerics.md). A query's bits do
// not depend on the others, nor on how a prompt is cut, as long as it comes here; but a value that
// is not finite shows in all queries whose tile holds it.
// SPDX-License-Identifier: MIT
#include "kernels/cuda/kv.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kTileWarps = 4;
constexpr int kTileThreads = kTileWarps * 32;
constexpr int kTilePositions = 64;
constexpr int kTileQueries = 16 * kTileWarps;
constexpr int kPiece = 8;                            // elements of 16 bytes
constexpr int kKeyPieces = kTilePositions / kPiece;  // of a row of keys
constexpr int kSteps = kTilePositions / 16;          // mma along a tile's positions
constexpr float kLog2E = 0x1.715476p+0f;

// Blocks per multiprocessor that registers have to suffice for.
template <int kDim>
constexpr int kResidentTiles = kDim > 64 ? 2 : 3;

// How numbers of a cache meet tensor cores: as one f16, or as the sum of two bf16.
template <KvPlane kPlane>
struct Halves {
  static constexpr int kParts = 1;
  static GLM_DEVICE void cut(float low, float high, uint32_t (&out)[kParts]) {
    out[0] = half_pair(low, high);
  }
  static GLM_DEVICE void multiply(float (&c)[4],
                                  const uint32_t (&a)[kParts][4],
                                  const uint32_t (&b)[kParts][4],
                                  int side) {
    mma_f16(c, a[0], b[0][2 * side], b[0][2 * side + 1]);
  }
};
template <>
struct Halves<KvPlane::kF32> {
  static constexpr int kParts = 2;
  static GLM_DEVICE void cut(float low, float high, uint32_t (&out)[kParts]) {
    out[0] = bfloat_pair(low, high);
    out[1] = bfloat_pair(low - float_of(out[0] << 16), high - float_of(out[0] & 0xFFFF0000u));
  }
  // Small terms first.
  static GLM_DEVICE void multiply(float (&c)[4],
                                  const uint32_t (&a)[kParts][4],
                                  const uint32_t (&b)[kParts][4],
                                  int side) {
    mma_bf16(c, a[1], b[0][2 * side], b[0][2 * side + 1]);
    mma_bf16(c, a[0], b[1][2 * side], b[1][2 * side + 1]);
    mma_bf16(c, a[0], b[0][2 * side], b[0][2 * side + 1]);
  }
};

// What a block works on: queries [first, first + 64) of the n_heads * n_rows of a span, row by row.
struct TileUnit {
  int kv_head;
  int first_head;
  int n_heads;
  int first;
  int n_queries;  // of the span
  int64_t first_row;
  int position;  // of the span's first row
  const int32_t* pages;

  // Positions that query n sees; those beyond the last stand for the last.
  GLM_DEVICE int bounded(int n) const { return n < n_queries ? n : n_queries - 1; }
  GLM_DEVICE int visible(int n) const { return position + bounded(n) / n_heads + 1; }
  GLM_DEVICE int block_visible() const { return visible(first + kTileQueries - 1); }
  GLM_DEVICE int64_t row(int n) const { return first_row + bounded(n) / n_heads; }
  GLM_DEVICE int head(int n) const { return first_head + bounded(n) % n_heads; }
};

// Blocks with the most positions come first.
GLM_DEVICE TileUnit tile_unit_of(const AttentionArgs& a) {
  TileUnit u{};
  u.kv_head = static_cast<int>(blockIdx.x) % a.n_kv_heads;
  int index = static_cast<int>(blockIdx.x) / a.n_kv_heads;
  const int begin = u.kv_head * a.ratio - a.first_head;  // may be of another rank
  const int end = begin + a.ratio < a.n_heads ? begin + a.ratio : a.n_heads;
  u.first_head = begin > 0 ? begin : 0;
  u.n_heads = end - u.first_head;
  if (u.n_heads <= 0) return u;
  for (int s = 0; s < a.n_spans; ++s) {
    const int32_t* span = a.spans + 4 * s;  // first row, rows, position, first page
    if (span[1] < a.tile_rows) continue;
    const int n_queries = span[1] * u.n_heads;
    const int n_tiles = (n_queries + kTileQueries - 1) / kTileQueries;
    if (index < n_tiles) {
      u.first = (n_tiles - 1 - index) * kTileQueries;
      u.n_queries = n_queries;
      u.first_row = span[0];
      u.position = span[2];
      u.pages = a.block_table + span[3];
      return u;
    }
    index -= n_tiles;
  }
  return u;
}

// Of a warp.
GLM_DEVICE int first_query(const TileUnit& u) {
  return u.first + static_cast<int>(threadIdx.x) / 32 * 16;
}

// Eight neighbouring elements of the cache, those from `count` on zero; `whole`: they begin at a
// multiple of eight elements.
template <KvPlane kPlane>
GLM_DEVICE void read_piece(const typename Element<kPlane>::Type* from,
                           int count,
                           bool whole,
                           float (&x)[kPiece]) {
  if (whole && count >= kPiece) {
    if constexpr (kPlane == KvPlane::kQ8) {
      const Words2 words = *reinterpret_cast<const Words2*>(from);
      GLM_UNROLL
      for (int i = 0; i < kPiece; ++i)
        x[i] = static_cast<float>(static_cast<int8_t>(words.v[i / 4] >> (i % 4 * 8)));
    } else {
      constexpr int kOfWords = 16 / static_cast<int>(sizeof(*from));
      GLM_UNROLL
      for (int i = 0; i < kPiece; i += kOfWords) {
        const Words4 words = *reinterpret_cast<const Words4*>(from + i);
        GLM_UNROLL
        for (int n = 0; n < kOfWords; ++n)
          x[i + n] = kPlane == KvPlane::kF32
                         ? float_of(words.v[n % 4])
                         : half_to_float(static_cast<uint16_t>(words.v[n / 2] >> (n % 2 * 16)));
      }
    }
    return;
  }
  GLM_UNROLL
  for (int i = 0; i < kPiece; ++i) x[i] = i < count ? Element<kPlane>::value(from[i]) : 0.0f;
}

// A tile of keys, [part][element][64], and of values, [part][64][element], in shared memory. Both
// stand in the cache as ldmatrix.trans wants them (kernels/cpu/kv_page.h), so pages go there as
// they are. 16-byte pieces of a row stand exchanged (piece ^ row % 8), so that eight rows are read
// without conflicts.
template <KvPlane kPlane, int kDim>
struct Tile {
  using Type = typename Element<kPlane>::Type;
  using Numbers = Halves<kPlane>;
  static constexpr int kElements = kDim * kTilePositions;
  static constexpr int kValuePieces = kDim / kPiece;
  static constexpr int kQueryWords = kDim / 16 * Numbers::kParts * kTileThreads;
  static constexpr size_t kBytes = size_t{2} * Numbers::kParts * kElements * sizeof(uint16_t) +
                                   size_t{kQueryWords} * sizeof(Words4);

  static GLM_DEVICE uint16_t* keys(int part) { return shared_as<uint16_t>() + part * kElements; }
  static GLM_DEVICE uint16_t* values(int part) { return keys(Numbers::kParts + part); }
  // This thread's own words of its warp's queries: registers have no room for them.
  static GLM_DEVICE Words4& query(int step, int part) {
    auto* words = reinterpret_cast<Words4*>(values(Numbers::kParts));
    return words[(step * Numbers::kParts + part) * kTileThreads + threadIdx.x];
  }

  static GLM_DEVICE void put(uint16_t* first_part, int at, const float (&x)[kPiece]) {
    Words4 words[Numbers::kParts];
    GLM_UNROLL
    for (int i = 0; i < 4; ++i) {
      uint32_t parts[Numbers::kParts];
      Numbers::cut(x[2 * i], x[2 * i + 1], parts);
      GLM_UNROLL
      for (int part = 0; part < Numbers::kParts; ++part) words[part].v[i] = parts[part];
    }
    GLM_UNROLL
    for (int part = 0; part < Numbers::kParts; ++part)
      *reinterpret_cast<Words4*>(first_part + part * kElements + at) = words[part];
  }

  // Begins to fetch the keys of tile `tile`, of which `seen` positions exist. A thread has the same
  // eight positions of every 16th element.
  static GLM_DEVICE void fetch_keys(const AttentionArgs& a, const TileUnit& u, int tile, int seen) {
    constexpr int kStride = kTileThreads / kKeyPieces;
    const int piece = static_cast<int>(threadIdx.x) % kKeyPieces;
    const int first = static_cast<int>(threadIdx.x) / kKeyPieces;
    const int at = first * kTilePositions + (piece ^ first % kKeyPieces) * kPiece;
    const int end = piece * kPiece < seen ? a.head_dim : 0;  // of the elements that are there
    const int32_t page = end > 0 ? u.pages[tile * kSteps + piece / 2] : 0;
    const uint8_t* bytes = a.keys + page * a.page_bytes;
    const int offset = piece % 2 * kPiece;
    const auto* from = reinterpret_cast<const Type*>(bytes) + offset +
                       (int64_t{u.kv_head} * a.head_dim + first) * kPagePositions;
    if constexpr (kPlane == KvPlane::kF16) {
      GLM_UNROLL
      for (int i = 0; i < kDim / kStride; ++i) {
        const bool there = i * kStride + first < end;
        copy_16(keys(0) + at + i * kStride * kTilePositions,
                from + (there ? i * kStride * kPagePositions : 0),
                there);
      }
    } else {
      const int groups = (a.head_dim + kGroup - 1) / kGroup;
      const float* scales = reinterpret_cast<const float*>(bytes + a.scale_bytes) + offset +
                            u.kv_head * groups * kPagePositions;
      GLM_UNROLL_BY(2)
      for (int i = 0; i < kDim / kStride; ++i) {
        const int dim = i * kStride + first;
        float x[kPiece];
        read_piece<kPlane>(from + i * kStride * kPagePositions, dim < end ? kPiece : 0, true, x);
        if (kPlane == KvPlane::kQ8 && dim < end)
          for (int n = 0; n < kPiece; ++n) x[n] = x[n] * scales[dim / kGroup * kPagePositions + n];
        put(keys(0), at + i * kStride * kTilePositions, x);
      }
    }
  }

  // The same for values; a thread has the same elements of every 8th or 16th position. Values of
  // positions that do not exist are zero: their weights are, too, and the sums must not see what
  // the page holds.
  static GLM_DEVICE void fetch_values(const AttentionArgs& a,
                                      const TileUnit& u,
                                      int tile,
                                      int seen) {
    constexpr int kStride = kTileThreads / kValuePieces;
    const int dim = static_cast<int>(threadIdx.x) % kValuePieces * kPiece;
    const int first = static_cast<int>(threadIdx.x) / kValuePieces;
    const int at = first * kDim + (dim / kPiece ^ first % 8) * kPiece;
    const int count = a.head_dim - dim;
    const int end = count > 0 ? seen : 0;  // of the positions that are there
    const bool whole = a.head_dim % kPiece == 0;
    const int head = u.kv_head * kPagePositions;  // its first vector in a page
    if constexpr (kPlane == KvPlane::kF16) {
      if (whole) {
        GLM_UNROLL
        for (int i = 0; i < kTilePositions / kStride; ++i) {
          const int p = i * kStride + first;
          const int32_t page = p < end ? u.pages[tile * kSteps + p / kPagePositions] : 0;
          const auto* from = reinterpret_cast<const Type*>(a.values + page * a.page_bytes);
          const int vector = (head + p % kPagePositions) * a.head_dim;
          copy_16(
              values(0) + at + i * kStride * kDim, from + vector + (end > 0 ? dim : 0), p < end);
        }
        return;
      }
    }
    const int groups = (a.head_dim + kGroup - 1) / kGroup;
    GLM_UNROLL_BY(2)
    for (int i = 0; i < kTilePositions / kStride; ++i) {
      const int p = i * kStride + first;
      const int32_t page = p < end ? u.pages[tile * kSteps + p / kPagePositions] : 0;
      const uint8_t* bytes = a.values + page * a.page_bytes;
      const int vector = head + p % kPagePositions;
      float x[kPiece];
      read_piece<kPlane>(reinterpret_cast<const Type*>(bytes) + vector * a.head_dim + dim,
                         p < end ? count : 0,
                         whole,
                         x);
      if (kPlane == KvPlane::kQ8 && p < end) {
        const auto* scales = reinterpret_cast<const float*>(bytes + a.scale_bytes);
        const float scale = scales[vector * groups + dim / kGroup];
        for (int n = 0; n < kPiece; ++n) x[n] = x[n] * scale;
      }
      put(values(0), at + i * kStride * kDim, x);
    }
  }
};

// Sixteen queries of a warp. A lane has queries l / 4 and l / 4 + 8 of them.
template <KvPlane kPlane, int kDim>
struct Queries {
  using Numbers = Halves<kPlane>;
  using Memory = Tile<kPlane, kDim>;
  static constexpr int kParts = Numbers::kParts;

  float sums[kDim / 8][4];  // of weight * value
  float largest[2];
  float total[2];  // of this lane's positions
  int visible[2];

  // Queries are scaled by head_dim^-0.5 and log2(e).
  GLM_DEVICE void begin(const AttentionArgs& a, const TileUnit& u, int first) {
    const int lane = lane_id();
    GLM_UNROLL
    for (int side = 0; side < 2; ++side) {
      const int n = first + lane / 4 + side * 8;
      const float* from = a.qkv + u.row(n) * a.row_width + int64_t{u.head(n)} * a.head_dim;
      GLM_UNROLL
      for (int step = 0; step < kDim / 16; ++step) {
        GLM_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int dim = step * 16 + half * 8 + lane % 4 * 2;
          const float scale = a.scale * kLog2E;
          uint32_t parts[kParts];
          Numbers::cut(dim < a.head_dim ? from[dim] * scale : 0.0f,
                       dim + 1 < a.head_dim ? from[dim + 1] * scale : 0.0f,
                       parts);
          GLM_UNROLL
          for (int part = 0; part < kParts; ++part)
            Memory::query(step, part).v[2 * half + side] = parts[part];
        }
      }
      largest[side] = lowest();
      total[side] = 0.0f;
      visible[side] = u.visible(n);
    }
    GLM_UNROLL
    for (int d = 0; d < kDim / 8; ++d) GLM_UNROLL
    for (int i = 0; i < 4; ++i) sums[d][i] = 0.0f;
  }

  // Scores of a tile: those of position 8 n + 2 (l % 4) + i % 2 and query l / 4 + i / 2 * 8.
  GLM_DEVICE void score(float (&scores)[2 * kSteps][4]) const {
    const int row = lane_id() % 8;
    const int matrix = lane_id() / 8;  // elements 0..7, 8..15 of positions 0..7, then of 8..15
    GLM_UNROLL
    for (int n = 0; n < 2 * kSteps; ++n) GLM_UNROLL
    for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
    GLM_UNROLL
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t own[kParts][4];
      GLM_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const Words4 words = Memory::query(step, part);
        GLM_UNROLL
        for (int i = 0; i < 4; ++i) own[part][i] = words.v[i];
      }
      GLM_UNROLL
      for (int pair = 0; pair < kSteps; ++pair) {
        const int dim = step * 16 + matrix % 2 * 8 + row;
        const int piece = (pair * 2 + matrix / 2) ^ row;
        uint32_t keys[kParts][4];
        GLM_UNROLL
        for (int part = 0; part < kParts; ++part)
          turned_matrices(keys[part], Memory::keys(part) + dim * kTilePositions + piece * kPiece);
        Numbers::multiply(scores[2 * pair], own, keys, 0);
        Numbers::multiply(scores[2 * pair + 1], own, keys, 1);
      }
    }
  }

  // Positions that a query does not see get the score -inf.
  GLM_DEVICE void hide(float (&scores)[2 * kSteps][4], int begin) const {
    const int first = begin + lane_id() % 4 * 2;
    GLM_UNROLL
    for (int n = 0; n < 2 * kSteps; ++n) GLM_UNROLL
    for (int i = 0; i < 4; ++i)
      if (first + 8 * n + i % 2 >= visible[i / 2]) scores[n][i] = lowest();
  }

  // From scores to weights, relative to the largest score so far.
  GLM_DEVICE void weigh(float (&scores)[2 * kSteps][4]) {
    float shrink[2];
    GLM_UNROLL
    for (int side = 0; side < 2; ++side) {
      float top = largest[side];
      GLM_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) GLM_UNROLL
      for (int i = 0; i < 2; ++i) {
        const float one = scores[n][2 * side + i];
        top = top > one ? top : one;
      }
      GLM_UNROLL
      for (int step = 2; step > 0; step /= 2) {
        const float other = shuffle_xor(top, step);
        top = top > other ? top : other;
      }
      shrink[side] = power_of_two(largest[side] - top);
      largest[side] = top;
      float sum = 0.0f;
      GLM_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) GLM_UNROLL
      for (int i = 0; i < 2; ++i) {
        const float weight = power_of_two(scores[n][2 * side + i] - top);
        scores[n][2 * side + i] = weight;
        sum = sum + weight;
      }
      total[side] = fused(total[side], shrink[side], sum);
    }
    GLM_UNROLL
    for (int d = 0; d < kDim / 8; ++d) GLM_UNROLL
    for (int i = 0; i < 4; ++i) sums[d][i] = sums[d][i] * shrink[i / 2];
  }

  // Results of one mma are operands of the next: a lane's two positions of every eight.
  GLM_DEVICE void add_values(const float (&weights)[2 * kSteps][4]) {
    const int row = lane_id() % 8;
    const int matrix = lane_id() / 8;  // positions 0..7, 8..15 of elements 0..7, then of 8..15
    GLM_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      uint32_t own[kParts][4];
      GLM_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[2 * step + i / 2][i % 2 * 2];
        uint32_t parts[kParts];
        Numbers::cut(pair[0], pair[1], parts);
        GLM_UNROLL
        for (int part = 0; part < kParts; ++part) own[part][i] = parts[part];
      }
      GLM_UNROLL
      for (int d = 0; d < kDim / 16; ++d) {
        const int p = step * 16 + matrix % 2 * 8 + row;
        const int piece = (d * 2 + matrix / 2) ^ row;
        uint32_t values[kParts][4];
        GLM_UNROLL
        for (int part = 0; part < kParts; ++part)
          turned_matrices(values[part], Memory::values(part) + p * kDim + piece * kPiece);
        Numbers::multiply(sums[2 * d], own, values, 0);
        Numbers::multiply(sums[2 * d + 1], own, values, 1);
      }
    }
  }

  // Asks for the block's work once more: kept, it would cost registers all the way.
  GLM_DEVICE void finish(const AttentionArgs& a) {
    const TileUnit u = tile_unit_of(a);
    const int lane = lane_id();
    const int first = first_query(u);
    GLM_UNROLL
    for (int side = 0; side < 2; ++side) {
      float sum = total[side];
      for (int step = 2; step > 0; step /= 2) sum = sum + shuffle_xor(sum, step);
      const int n = first + lane / 4 + side * 8;
      if (n >= u.n_queries) continue;
      const float inverse = quotient(1.0f, sum);
      float* to = a.out + (u.row(n) * a.n_heads + u.head(n)) * a.head_dim;
      GLM_UNROLL
      for (int d = 0; d < kDim / 8; ++d) GLM_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int dim = d * 8 + lane % 4 * 2 + i;
        if (dim < a.head_dim) to[dim] = sums[d][2 * side + i] * inverse;
      }
    }
  }
};

// Keys of the next tile travel while values are added, values while scores are computed.
template <KvPlane kPlane, int kDim>
__global__ void GLM_BOUNDS(kTileThreads, kResidentTiles<kDim>) attend_tiles(AttentionArgs a) {
  using Memory = Tile<kPlane, kDim>;
  const TileUnit u = tile_unit_of(a);
  if (u.n_queries <= 0) return;
  const int first = first_query(u);
  const int all_see = u.visible(first);
  const int most_see = u.visible(first + 15);
  const int end = u.block_visible();
  Queries<kPlane, kDim> queries;
  queries.begin(a, u, first);
  Memory::fetch_keys(a, u, 0, end);
  close_copies();
  for (int begin = 0; begin < end; begin += kTilePositions) {
    const int tile = begin / kTilePositions;
    const bool needed = begin < most_see;
    wait_copies<0>();
    __syncthreads();
    Memory::fetch_values(a, u, tile, end - begin);
    close_copies();
    float weights[2 * kSteps][4];
    if (needed) {
      queries.score(weights);
      if (begin + kTilePositions > all_see) queries.hide(weights, begin);
      queries.weigh(weights);
    }
    wait_copies<0>();
    __syncthreads();
    if (begin + kTilePositions < end)
      Memory::fetch_keys(a, u, tile + 1, end - begin - kTilePositions);
    close_copies();
    if (needed) queries.add_values(weights);
  }
  queries.finish(a);
}

template <KvPlane kPlane, int kDim>
void attend(const AttentionArgs& a, int64_t n_rows, Stream stream) {
  const int64_t heads = a.ratio < a.n_heads ? a.ratio : a.n_heads;
  const int64_t tiles = n_rows * heads / kTileQueries + a.n_spans;
  launch("attention tiles",
         attend_tiles<kPlane, kDim>,
         {tiles * a.n_kv_heads},
         kTileThreads,
         Tile<kPlane, kDim>::kBytes,
         stream,
         a);
}

template <KvPlane kPlane>
void attend_width(const AttentionArgs& a, int64_t n_rows, Stream stream) {
  if (a.head_dim <= 64)
    attend<kPlane, 64>(a, n_rows, stream);
  else
    attend<kPlane, kMaxTileDim>(a, n_rows, stream);
}

}  // namespace

void attention_tiles(const AttentionArgs& args, KvPlane plane, int64_t n_rows, Stream stream) {
  if (plane == KvPlane::kF32)
    attend_width<KvPlane::kF32>(args, n_rows, stream);
  else if (plane == KvPlane::kF16)
    attend_width<KvPlane::kF16>(args, n_rows, stream);
  else
    attend_width<KvPlane::kQ8>(args, n_rows, stream);
}

}  // namespace glm::GLM_CUDA_SPACE
