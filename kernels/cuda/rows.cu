// Kernels that move, add and normalise rows. SPDX-License-Identifier: MIT
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kThreads = 256;
constexpr int kSums = 64;  // partial sums of a norm: column mod 64

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Element (row, col) of a matrix of any type.
GLM_DEVICE float element(const EmbedArgs& a, int64_t row, int64_t col) {
  const int64_t at = row * a.cols + col;
  if (a.plane == Plane::kF32) return static_cast<const float*>(a.values)[at];
  if (a.plane == Plane::kF16) return half_to_float(static_cast<const uint16_t*>(a.values)[at]);
  if (a.plane == Plane::kBF16)
    return float_of(static_cast<uint32_t>(static_cast<const uint16_t*>(a.values)[at]) << 16);
  const int64_t blocks = a.cols / 32;
  const int64_t block = col / 32;
  const int i = static_cast<int>(col % 32);
  const bool nibbles = a.plane == Plane::kQ40;
  const int bytes = nibbles ? 16 : 32;  // of a row of a block
  const int byte = nibbles ? i % 16 : i;
  const int64_t tile = row / 16 * blocks + block;
  const int64_t lane = row % 16;
  const int64_t place = a.tiles ? tile * 16 * bytes + (byte / 4 * 16 + lane) * 4 + byte % 4
                                : (row * blocks + block) * bytes + byte;
  const float d = half_to_float(a.scales[a.tiles ? tile * 16 + lane : row * blocks + block]);
  if (!nibbles) return d * static_cast<float>(static_cast<const int8_t*>(a.values)[place]);
  const int pair = static_cast<const uint8_t*>(a.values)[place];
  return d * static_cast<float>((i < 16 ? pair & 15 : pair >> 4) - 8);
}

__global__ void embed_rows(EmbedArgs a) {
  const int64_t t = blockIdx.x;
  const int64_t id = a.ids[t] - a.first_row;
  const bool mine = id >= 0 && id < a.rows;
  for (int64_t c = threadIdx.x; c < a.cols; c += blockDim.x)
    a.out[t * a.cols + c] = mine ? element(a, id, c) : 0.0f;
}

// A block per row, to which y is added first where there is one; columns pass through shared
// memory, so that 64 chains of sums do not wait for memory.
__global__ void norm_rows(NormArgs a) {
  constexpr int kPiece = 2048;
  float* piece = shared_as<float>();
  float* sums = piece + kPiece;
  const int thread = static_cast<int>(threadIdx.x);
  float* x = a.x + blockIdx.x * a.cols;
  const float* y = a.y == nullptr ? nullptr : a.y + blockIdx.x * a.cols;
  float sum = 0.0f;
  for (int64_t begin = 0; begin < a.cols; begin += kPiece) {
    const int n = static_cast<int>(a.cols - begin < kPiece ? a.cols - begin : kPiece);
    for (int i = thread; i < n; i += kThreads) {
      if (y != nullptr) x[begin + i] = x[begin + i] + y[begin + i];  // read again by this thread
      piece[i] = x[begin + i];
    }
    __syncthreads();
    if (thread < kSums)
      for (int i = thread; i < n; i += kSums) sum = fused(piece[i], piece[i], sum);
    __syncthreads();
  }
  if (thread < kSums) sums[thread] = sum;
  for (int step = kSums / 2; step > 0; step /= 2) {
    __syncthreads();
    if (thread < step) sums[thread] = sums[thread] + sums[thread + step];
  }
  __syncthreads();
  const float mean = quotient(sums[0], static_cast<float>(a.cols));
  const float inverse = quotient(1.0f, square_root(mean + a.eps));
  for (int64_t c = thread; c < a.cols; c += kThreads)
    a.out[blockIdx.x * a.cols + c] = x[c] * inverse * a.weight[c];
}

__global__ void fill_rope_table(RopeTableArgs a) {
  const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (i >= a.half) return;
  const int64_t t = blockIdx.x;
  const double angle = static_cast<double>(static_cast<float>(a.positions[t]) * a.inv_freq[i]);
  float* row = a.out + t * 2 * a.half;
  row[i] = static_cast<float>(cos(angle));
  row[a.half + i] = static_cast<float>(sin(angle));
}

// A row outside x becomes NaN: a kernel cannot refuse.
__global__ void gather(GatherArgs a) {
  const int64_t from = a.index[blockIdx.x];
  const bool inside = from >= 0 && from < a.x_rows;
  const int64_t c = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (c < a.cols)
    a.out[blockIdx.x * a.cols + c] = inside ? a.x[from * a.cols + c] : bits_of(not_a_number());
}

__global__ void add_all(AddArgs a) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < a.n) a.x[i] = a.x[i] + a.y[i];
}

__global__ void concat(ConcatArgs a) {
  const Slice slice = a.slices[blockIdx.y];
  for (int64_t c = threadIdx.x; c < slice.width; c += blockDim.x)
    a.out[blockIdx.x * a.out_cols + slice.to + c] =
        a.in[slice.in_first + blockIdx.x * slice.width + c];
}

__global__ void pad(PadArgs a) {
  for (int64_t c = threadIdx.x; c < a.out_cols; c += blockDim.x) {
    const int64_t from = c - a.first;
    a.out[blockIdx.x * a.out_cols + c] =
        from >= 0 && from < a.in_cols ? a.in[blockIdx.x * a.in_cols + from] : 0.0f;
  }
}

}  // namespace

void embed(const EmbedArgs& args, int64_t n_rows, Stream stream) {
  launch("embed", embed_rows, {n_rows}, kThreads, 0, stream, args);
}

void rms_norm(const NormArgs& args, int64_t n_rows, Stream stream) {
  launch("rms_norm", norm_rows, {n_rows}, kThreads, (2048 + kSums) * sizeof(float), stream, args);
}

void rope_table(const RopeTableArgs& args, int64_t n_rows, Stream stream) {
  launch("rope_table", fill_rope_table, {n_rows, pieces(args.half, 32)}, 32, 0, stream, args);
}

void gather_rows(const GatherArgs& args, int64_t n_rows, Stream stream) {
  const Shape grid{n_rows, pieces(args.cols, kThreads)};
  launch("gather_rows", gather, grid, kThreads, 0, stream, args);
}

void add(const AddArgs& args, Stream stream) {
  launch("add", add_all, {pieces(args.n, kThreads)}, kThreads, 0, stream, args);
}

void concat_columns(const ConcatArgs& args, int n_slices, Stream stream) {
  launch("concat_columns", concat, {args.n_rows, n_slices}, kThreads, 0, stream, args);
}

void pad_columns(const PadArgs& args, int64_t n_rows, Stream stream) {
  launch("pad_columns", pad, {n_rows}, kThreads, 0, stream, args);
}

}  // namespace glm::GLM_CUDA_SPACE
