// q80 and q40 weights: inputs are quantised to int8 once per row, then products of a block are
// exact in int32 and scaled by one fused multiply-add, block after block. SPDX-License-Identifier:
// MIT
#include "kernels/cuda/products.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;

// Order of a quantised input block, 32 bytes: for c = 0..3 the columns 4 c + 0..3 and then 16 + 4 c
// + 0..3, so that a lane's two words of an mma are neighbours.
GLM_DEVICE int word_place(int word) { return word < 4 ? 2 * word : 2 * (word - 4) + 1; }

template <bool kNibbles>
struct Quantized {
  // Words per row of a block and lane; scales of rows l / 4 and l / 4 + 8.
  static constexpr int kWords = kNibbles ? 1 : 2;
  static constexpr int kInFlight = 4;
  static constexpr int kStaged = 4;
  static constexpr int kStagedBytes =
      kTileInputs * (kColumns + static_cast<int>(sizeof(QuantScale)));

  struct Weights {
    const uint8_t* low;
    const uint8_t* high;
    const uint16_t* low_scale;
    const uint16_t* high_scale;
    int step;        // bytes from block to block
    int second;      // bytes from a lane's first word to its second
    int scale_step;  // scales from block to block
  };
  struct Raw {
    uint32_t low[kWords];
    uint32_t high[kWords];
    uint16_t low_scale;
    uint16_t high_scale;
  };
  struct Fragment {
    uint32_t a[4];
    float low_scale;
    float high_scale;
  };
  struct Input {
    Words2 b;
    QuantScale first;   // of the lane's first column of the results
    QuantScale second;  // and of its second
  };

  // Tiles hold a lane's words where an mma wants them (core/base/dtype.h), rows nearly so.
  static GLM_DEVICE Weights weights(const ProductArgs& a, int matrix, int64_t first, int lane) {
    constexpr int kRowBytes = kNibbles ? 16 : 32;
    const uint8_t* values = a.values + matrix * a.value_stride;
    const uint16_t* scales = a.scales + matrix * a.scale_stride;
    const int row = lane / 4;
    const int word = lane % 4;
    if (a.tiles) {
      const int64_t tile = bounded_row(a, first) / kRowTile * a.blocks;
      const uint8_t* low = values + tile * kRowTile * kRowBytes + (word * kRowTile + row) * 4;
      const uint16_t* scale = scales + tile * kRowTile + row;
      return {low, low + 32, scale, scale + 8, kRowTile * kRowBytes, 256, kRowTile};
    }
    const int64_t low = bounded_row(a, first + row) * a.blocks;
    const int64_t high = bounded_row(a, first + row + 8) * a.blocks;
    return {values + low * kRowBytes + word * 4,
            values + high * kRowBytes + word * 4,
            scales + low,
            scales + high,
            kRowBytes,
            16,
            1};
  }

  static GLM_DEVICE Raw load(const Weights& w, int64_t block) {
    Raw raw;
    GLM_UNROLL
    for (int i = 0; i < kWords; ++i) {
      raw.low[i] = stream_word(w.low + block * w.step + i * w.second);
      raw.high[i] = stream_word(w.high + block * w.step + i * w.second);
    }
    raw.low_scale = stream_half(w.low_scale + block * w.scale_step);
    raw.high_scale = stream_half(w.high_scale + block * w.scale_step);
    return raw;
  }

  static GLM_DEVICE Fragment fragment(const Raw& raw) {
    Fragment f;
    constexpr uint32_t kLow = 0x0F0F0F0Fu;
    f.a[0] = kNibbles ? raw.low[0] & kLow : raw.low[0];
    f.a[1] = kNibbles ? raw.high[0] & kLow : raw.high[0];
    f.a[2] = kNibbles ? raw.low[0] >> 4 & kLow : raw.low[kWords - 1];
    f.a[3] = kNibbles ? raw.high[0] >> 4 & kLow : raw.high[kWords - 1];
    f.low_scale = half_to_float(raw.low_scale);
    f.high_scale = half_to_float(raw.high_scale);
    return f;
  }

  static GLM_DEVICE Input input(const ProductArgs& a,
                                const InputRows& rows,
                                int64_t block,
                                int lane) {
    const int64_t at = rows.own * a.blocks + block;
    return {*reinterpret_cast<const Words2*>(a.q + at * kColumns + lane % 4 * 8),
            a.input_scales[rows.first * a.blocks + block],
            a.input_scales[rows.second * a.blocks + block]};
  }

  static GLM_DEVICE void stage(
      const ProductArgs& a, const WorkItem& item, int64_t begin, int64_t end, int inputs) {
    auto* bytes = shared_as<uint8_t>();
    const int blocks = static_cast<int>(end - begin);
    for (int n = static_cast<int>(threadIdx.x); n < inputs * blocks * 2; n += kManyWarps * 32) {
      const int half = n % 2;
      const int block = n / 2 % blocks;
      const int input = n / 2 / blocks;
      const int64_t at = input_row(a, item, input) * a.blocks + begin + block;
      uint8_t* to = bytes + block * kStagedBytes;
      *reinterpret_cast<Words4*>(to + input * kColumns + half * 16) =
          *reinterpret_cast<const Words4*>(a.q + at * kColumns + half * 16);
      if (half == 0)
        reinterpret_cast<QuantScale*>(to + kTileInputs * kColumns)[input] = a.input_scales[at];
    }
  }

  static GLM_DEVICE Input staged(int block, int tile, int lane) {
    const uint8_t* from = shared_as<uint8_t>() + block * kStagedBytes;
    const auto* scales = reinterpret_cast<const QuantScale*>(from + kTileInputs * kColumns);
    Input in;
    in.b = *reinterpret_cast<const Words2*>(from + (tile * 8 + lane / 4) * kColumns + lane % 4 * 8);
    in.first = scales[tile * 8 + lane % 4 * 2];
    in.second = scales[tile * 8 + lane % 4 * 2 + 1];
    return in;
  }

  static GLM_DEVICE void multiply(const Fragment& f, const Input& in, float (&sums)[4]) {
    int32_t c[4] = {0, 0, 0, 0};
    if constexpr (kNibbles) {
      c[0] = c[2] = in.first.minus_8_sum;
      c[1] = c[3] = in.second.minus_8_sum;
    }
    mma_s8(c, f.a, in.b.v);
    sums[0] = fused(f.low_scale * in.first.d, static_cast<float>(c[0]), sums[0]);
    sums[1] = fused(f.low_scale * in.second.d, static_cast<float>(c[1]), sums[1]);
    sums[2] = fused(f.high_scale * in.first.d, static_cast<float>(c[2]), sums[2]);
    sums[3] = fused(f.high_scale * in.second.d, static_cast<float>(c[3]), sums[3]);
  }
};

// Eight lanes quantise a block, four columns each.
GLM_DEVICE void quantize_blocks(const PrepareArgs& a, int64_t row) {
  const int64_t lanes = (a.blocks * 8 + 31) / 32 * 32;  // whole warps take part in shuffles
  const int word = static_cast<int>(threadIdx.x) % 8;
  for (int64_t n = threadIdx.x; n < lanes; n += kThreads) {
    const int64_t block = n / 8;
    const bool mine = block < a.blocks;
    Floats4 x = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (mine)
      x = *reinterpret_cast<const Floats4*>(a.x + (row * a.blocks + block) * kColumns + word * 4);
    uint32_t top = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t magnitude = bits_of(x.v[i]) & 0x7FFFFFFFu;
      top = magnitude > top ? magnitude : top;
    }
    for (int step = 4; step > 0; step /= 2) {
      const uint32_t other = shuffle_xor(top, step);
      top = other > top ? other : top;
    }
    const float largest = float_of(top);
    const bool usable = largest >= kSmallestBlock && largest <= kLargestFloat;
    const float inverse = usable ? quotient(127.0f, largest) : 0.0f;
    uint32_t packed = 0;
    int32_t sum = 0;
    for (int i = 0; i < 4; ++i) {
      const int q = usable ? quantized(x.v[i] * inverse) : 0;
      sum += q;
      packed |= (static_cast<uint32_t>(q) & 0xFFu) << (8 * i);
    }
    for (int step = 4; step > 0; step /= 2) sum += shuffle_xor(sum, step);
    if (!mine) continue;
    const int64_t at = row * a.blocks + block;
    reinterpret_cast<uint32_t*>(a.q + at * kColumns)[word_place(word)] = packed;
    if (word == 0)
      a.scales[at] = {largest < kSmallestBlock ? 0.0f : quotient(largest, 127.0f), -8 * sum};
  }
}

// Pieces of at most `tile` assignments of every expert that has any, in ascending order.
GLM_DEVICE void list_items(const PrepareArgs& a) {
  int32_t* pieces = shared_as<int32_t>();
  for (int e = static_cast<int>(threadIdx.x); e < a.n_experts; e += kThreads)
    pieces[e] = (a.offsets[e + 1] - a.offsets[e] + a.tile - 1) / a.tile;
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < a.n_experts; e += kThreads) {
    int32_t at = 0;
    for (int before = 0; before < e; ++before) at += pieces[before];
    const int32_t last = a.offsets[e + 1];
    for (int32_t first = a.offsets[e]; first < last; first += a.tile)
      a.items[at++] = {e, first, last - first < a.tile ? last - first : a.tile};
    if (e == a.n_experts - 1) *a.n_items = at;
  }
}

// The last block lists the work, the others quantise a row each.
__global__ void prepare_inputs(PrepareArgs a) {
  const int64_t rows = a.q == nullptr ? 0 : a.n_rows;
  if (int64_t{blockIdx.x} < rows)
    quantize_blocks(a, blockIdx.x);
  else
    list_items(a);
}

}  // namespace

int product_tile(Plane plane, int64_t n) {
  if (plane == Plane::kF32) return n == 1 ? 1 : 8;
  return n <= 8 ? 8 : (n <= kFewInputs ? kFewInputs : kTileInputs);
}

void prepare(const PrepareArgs& args, Stream stream) {
  const bool list = args.offsets != nullptr;
  const int64_t rows = args.q == nullptr || args.blocks == 0 ? 0 : args.n_rows;
  PrepareArgs a = args;
  if (rows == 0) a.q = nullptr;
  const size_t bytes = list ? static_cast<size_t>(args.n_experts) * sizeof(int32_t) : 0;
  launch("prepare", prepare_inputs, {rows + (list ? 1 : 0)}, kThreads, bytes, stream, a);
}

void quantized_product(
    const ProductArgs& args, Plane plane, int tile, int64_t n_items, Stream stream) {
  if (plane == Plane::kQ40)
    product<Quantized<true>>(args, tile, n_items, stream, "product q40");
  else
    product<Quantized<false>>(args, tile, n_items, stream, "product q80");
}

}  // namespace glm::GLM_CUDA_SPACE
