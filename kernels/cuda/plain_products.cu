// f32, f16 and bf16 weights. f32 follows the definition of the CPU to the bit: sixteen sums per
// shard. f16 and bf16 meet tensor cores: an input is the sum of three bf16, a weight of one (bf16)
// or two (f16), so that products have the precision of f32. SPDX-License-Identifier: MIT
#include "kernels/cuda/products.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

// ---- f16 and bf16

GLM_DEVICE float low_of(uint32_t pair) { return float_of(pair << 16); }
GLM_DEVICE float high_of(uint32_t pair) { return float_of(pair & 0xFFFF0000u); }

constexpr int kParts = 3;
// Eight neighbouring inputs, cut into parts.
struct InputParts {
  Words4 part[kParts];
};

GLM_DEVICE InputParts cut_inputs(float (&x)[8]) {
  InputParts out;
  GLM_UNROLL
  for (int part = 0; part < kParts; ++part) {
    GLM_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t pair = bfloat_pair(x[2 * i], x[2 * i + 1]);
      out.part[part].v[i] = pair;
      x[2 * i] = x[2 * i] - low_of(pair);
      x[2 * i + 1] = x[2 * i + 1] - high_of(pair);
    }
  }
  return out;
}

// Columns [first, first + 8) of row `row` of x; 0 beyond the last.
GLM_DEVICE InputParts read_inputs(const ProductArgs& a, int64_t row, int64_t first) {
  const float* from = a.x + row * a.cols + first;
  float x[8] = {};
  if (a.aligned && first + 8 <= a.cols) {
    const Floats4 low = reinterpret_cast<const Floats4*>(from)[0];
    const Floats4 high = reinterpret_cast<const Floats4*>(from)[1];
    GLM_UNROLL
    for (int i = 0; i < 4; ++i) {
      x[i] = low.v[i];
      x[4 + i] = high.v[i];
    }
  } else {
    GLM_UNROLL
    for (int i = 0; i < 8; ++i)
      if (first + i < a.cols) x[i] = from[i];
  }
  return cut_inputs(x);
}

// A lane has columns 8 (l % 4) + 0..7 of a block: the columns of two mma in an order that weights
// and inputs share.
template <bool kF16>
struct HalfWords {
  static constexpr int kInFlight = 4;
  static constexpr int kStaged = 2;
  static constexpr int kStagedBytes = kParts * kTileInputs * kColumns * 2;

  struct Weights {
    const uint16_t* low;
    const uint16_t* high;
    int64_t cols;  // left from the lane's first column on
    bool aligned;
  };
  struct Raw {
    Words4 low;
    Words4 high;
  };
  struct Fragment {
    uint32_t a[2][4];     // of two mma
    uint32_t rest[2][4];  // f16: what bf16 leaves over
  };
  using Input = InputParts;

  static GLM_DEVICE Weights weights(const ProductArgs& a, int matrix, int64_t first, int lane) {
    const auto* values =
        reinterpret_cast<const uint16_t*>(a.values + matrix * a.value_stride) + lane % 4 * 8;
    const int64_t low = bounded_row(a, first + lane / 4);
    const int64_t high = bounded_row(a, first + lane / 4 + 8);
    return {values + low * a.cols, values + high * a.cols, a.cols - lane % 4 * 8, a.aligned};
  }

  static GLM_DEVICE Words4 load_row(const uint16_t* row, int64_t left, bool aligned) {
    if (aligned && left >= 8) return stream_words(row);
    Words4 out = {{0, 0, 0, 0}};
    GLM_UNROLL
    for (int i = 0; i < 8; ++i)
      if (i < left) out.v[i / 2] |= static_cast<uint32_t>(row[i]) << (16 * (i % 2));
    return out;
  }

  static GLM_DEVICE Raw load(const Weights& w, int64_t block) {
    const int64_t at = block * kColumns;
    return {load_row(w.low + at, w.cols - at, w.aligned),
            load_row(w.high + at, w.cols - at, w.aligned)};
  }

  // Row l / 4 gives words 0 and 2 of each mma, row l / 4 + 8 words 1 and 3.
  static GLM_DEVICE Fragment fragment(const Raw& raw) {
    Fragment f;
    GLM_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t words[2] = {raw.low.v[i], raw.high.v[i]};
      GLM_UNROLL
      for (int side = 0; side < 2; ++side) {
        const int place = i % 2 * 2 + side;
        f.a[i / 2][place] = words[side];
        if constexpr (kF16) {
          const float x = half_to_float(static_cast<uint16_t>(words[side]));
          const float y = half_to_float(static_cast<uint16_t>(words[side] >> 16));
          const uint32_t pair = bfloat_pair(x, y);
          f.a[i / 2][place] = pair;
          f.rest[i / 2][place] = bfloat_pair(x - low_of(pair), y - high_of(pair));
        }
      }
    }
    return f;
  }

  static GLM_DEVICE Input input(const ProductArgs& a,
                                const InputRows& rows,
                                int64_t block,
                                int lane) {
    return read_inputs(a, rows.own, block * kColumns + lane % 4 * 8);
  }

  // [block][part][input][32], 64 bytes a row: eight lanes read 128 different bytes.
  static GLM_DEVICE void stage(
      const ProductArgs& a, const WorkItem& item, int64_t begin, int64_t end, int inputs) {
    const int blocks = static_cast<int>(end - begin);
    for (int n = static_cast<int>(threadIdx.x); n < inputs * blocks * 4; n += kManyWarps * 32) {
      const int eighth = n % 4;
      const int block = n / 4 % blocks;
      const int input = n / 4 / blocks;
      const InputParts x =
          read_inputs(a, input_row(a, item, input), (begin + block) * kColumns + eighth * 8);
      GLM_UNROLL
      for (int part = 0; part < kParts; ++part)
        staged_words(block, part)[input * 4 + eighth] = x.part[part];
    }
  }
  static GLM_DEVICE Words4* staged_words(int block, int part) {
    return shared_as<Words4>() + (block * kParts + part) * kTileInputs * 4;
  }

  static GLM_DEVICE Input staged(int block, int tile, int lane) {
    Input in;
    GLM_UNROLL
    for (int part = 0; part < kParts; ++part)
      in.part[part] = staged_words(block, part)[(tile * 8 + lane / 4) * 4 + lane % 4];
    return in;
  }

  // Small terms first. The rest of a weight times the smallest part of an input is below f32.
  static GLM_DEVICE void multiply(const Fragment& f, const Input& in, float (&sums)[4]) {
    GLM_UNROLL
    for (int half = 0; half < 2; ++half) {
      GLM_UNROLL
      for (int part = kParts - 1; part >= 0; --part) {
        const uint32_t b0 = in.part[part].v[2 * half];
        const uint32_t b1 = in.part[part].v[2 * half + 1];
        if constexpr (kF16)
          if (part + 1 < kParts) mma_bf16(sums, f.rest[half], b0, b1);
        mma_bf16(sums, f.a[half], b0, b1);
      }
    }
  }
};

// ---- f32

// Four columns; 0 beyond `end`.
GLM_DEVICE Floats4 four(const float* row, int64_t k, int64_t end, bool aligned) {
  if (aligned && k + 4 <= end) return *reinterpret_cast<const Floats4*>(row + k);
  Floats4 out = {{0.0f, 0.0f, 0.0f, 0.0f}};
  GLM_UNROLL
  for (int i = 0; i < 4; ++i)
    if (k + i < end) out.v[i] = row[k + i];
  return out;
}

// Four lanes share a row of the matrix, each with four of the sixteen sums of a shard; a warp has
// eight rows.
template <int kTile>
__global__ void GLM_BOUNDS(kFewWarps * 32, 2) f32_rows(ProductArgs a) {
  const WorkItem item = work_of(a, kTile);
  if (item.count <= 0) return;
  float* results = shared_as<float>();
  const int lane = lane_id();
  const int quarter = lane % 4;
  const int n_units = (a.gated ? 2 : 1) * a.n_shards * 2;
  const float* inputs[kTile];
  for (int t = 0; t < kTile; ++t) inputs[t] = a.x + input_row(a, item, t) * a.cols;
  for (int unit = static_cast<int>(threadIdx.x) / 32; unit < n_units;
       unit += static_cast<int>(blockDim.x) / 32) {
    const int shard = unit / 2 % a.n_shards;
    const int row = unit % 2 * 8 + lane / 4;
    const int64_t first = first_row_of(a, unit / 2 / a.n_shards, blockIdx.x);
    const float* w = reinterpret_cast<const float*>(a.values + item.matrix * a.value_stride) +
                     bounded_row(a, first + row) * a.cols;
    const int64_t begin = shard * a.shard_blocks * kColumns;
    const int64_t whole = begin + a.shard_blocks * kColumns;
    const int64_t end = whole < a.cols ? whole : a.cols;
    float sums[kTile][4] = {};
    GLM_UNROLL_BY(4)
    for (int64_t step = begin; step < end; step += 16) {
      const int64_t k = step + quarter * 4;
      const Floats4 weights = four(w, k, end, a.aligned);
      GLM_UNROLL
      for (int t = 0; t < kTile; ++t) {
        const Floats4 x = four(inputs[t], k, end, a.aligned);
        GLM_UNROLL
        for (int i = 0; i < 4; ++i) sums[t][i] = fused(weights.v[i], x.v[i], sums[t][i]);
      }
    }
    GLM_UNROLL
    for (int t = 0; t < kTile; ++t) {
      GLM_UNROLL
      for (int by = 2; by > 0; --by) GLM_UNROLL
      for (int i = 0; i < 4; ++i) sums[t][i] = sums[t][i] + shuffle_down(sums[t][i], by);
      const float p = (sums[t][0] + sums[t][2]) + (sums[t][1] + sums[t][3]);
      if (quarter == 0) results[(unit / 2 * kTile + t) * kRowTile + row] = p;
    }
  }
  __syncthreads();
  finish_rows(a, item, results, kTile);
}

}  // namespace

void plain_product(const ProductArgs& args, Plane plane, int tile, int64_t n_items, Stream stream) {
  if (plane == Plane::kF16) {
    product<HalfWords<true>>(args, tile, n_items, stream, "product f16");
    return;
  }
  if (plane == Plane::kBF16) {
    product<HalfWords<false>>(args, tile, n_items, stream, "product bf16");
    return;
  }
  const int units = (args.gated ? 2 : 1) * args.n_shards * 2;
  const int warps = units < 1 ? 1 : (units < kFewWarps ? units : kFewWarps);
  launch("product f32",
         tile == 1 ? f32_rows<1> : f32_rows<8>,
         {(args.width + kRowTile - 1) / kRowTile, n_items},
         warps * 32,
         few_shared_bytes(args, tile),
         stream,
         args);
}

}  // namespace glm::GLM_CUDA_SPACE
