// What happens to queries, keys and values between their projection and attention: norms of heads,
// rotary embedding, the way into the cache; each alone, and all at once. A warp has a vector (a
// head of a row). SPDX-License-Identifier: MIT
#include "kernels/cuda/kv.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.h"

namespace glm::GLM_CUDA_SPACE {
namespace {

constexpr int kSums = 64;  // partial sums of a norm: element mod 64, two of them to a lane

GLM_DEVICE void norm_vector(float* x, const float* weight, int head_dim, float eps) {
  const int lane = lane_id();
  float first = 0.0f;
  float second = 0.0f;
  for (int i = lane; i < head_dim; i += kSums) first = fused(x[i], x[i], first);
  for (int i = lane + 32; i < head_dim; i += kSums) second = fused(x[i], x[i], second);
  float sum = first + second;
  for (int step = 16; step > 0; step /= 2) sum = sum + shuffle_xor(sum, step);
  const float mean = quotient(sum, static_cast<float>(head_dim));
  const float inverse = quotient(1.0f, square_root(mean + eps));
  for (int i = lane; i < head_dim; i += 32) x[i] = x[i] * inverse * weight[i];
}

// table: cosines, then sines, of the row's position.
GLM_DEVICE void turn_vector(float* x, const float* table, int half, bool interleaved) {
  const float* sine = table + half;
  for (int i = lane_id(); i < half; i += 32) {
    float* first = x + (interleaved ? 2 * i : i);
    float* second = x + (interleaved ? 2 * i + 1 : i + half);
    const float a = *first;
    const float b = *second;
    *first = a * table[i] - b * sine[i];
    *second = b * table[i] + a * sine[i];
  }
}

// A warp writes 32 elements of a vector of row `row` to the cache. Vectors: keys of all heads, then
// values.
template <KvPlane kPlane>
GLM_DEVICE void store_group(const StoreArgs& a, int64_t row, int vector, int group) {
  using Type = typename Element<kPlane>::Type;
  const int32_t slot = a.slots[row];
  if (slot < 0 || slot >= a.n_slots) return;
  const bool key = vector < a.n_kv_heads;
  const int head = key ? vector : vector - a.n_kv_heads;
  const int offset = slot % kPagePositions;
  const int dim = group * kGroup + lane_id();
  const bool inside = dim < a.head_dim;
  const float x =
      inside ? a.qkv[row * a.row_width + int64_t{a.n_heads + vector} * a.head_dim + dim] : 0.0f;
  uint8_t* page = (key ? a.keys : a.values) + slot / kPagePositions * a.page_bytes;
  const int64_t at = key ? (int64_t{head} * a.head_dim + dim) * kPagePositions + offset
                         : (int64_t{head} * kPagePositions + offset) * a.head_dim + dim;
  auto* elements = reinterpret_cast<Type*>(page);
  if constexpr (kPlane == KvPlane::kF32) {
    if (inside) elements[at] = x;
  } else if constexpr (kPlane == KvPlane::kF16) {
    if (inside) elements[at] = float_to_half(x);
  } else {
    uint32_t top = bits_of(x) & 0x7FFFFFFFu;
    for (int step = 16; step > 0; step /= 2) {
      const uint32_t other = shuffle_xor(top, step);
      top = other > top ? other : top;
    }
    const float largest = float_of(top);
    const float inverse = largest >= kSmallestBlock ? quotient(127.0f, largest) : 0.0f;
    if (inside) elements[at] = static_cast<int8_t>(quantized(x * inverse));
    const int groups = (a.head_dim + kGroup - 1) / kGroup;
    const int64_t scale = key ? (int64_t{head} * groups + group) * kPagePositions + offset
                              : (int64_t{head} * kPagePositions + offset) * groups + group;
    if (lane_id() == 0)
      reinterpret_cast<float*>(page + a.scale_bytes)[scale] =
          largest < kSmallestBlock ? 0.0f : quotient(largest, 127.0f);
  }
}

__global__ void norm_heads(HeadNormArgs a) {
  float* x = a.qkv + blockIdx.y * a.row_width + (a.first_head + blockIdx.x) * int64_t{a.head_dim};
  norm_vector(x, a.weight, a.head_dim, a.eps);
}

__global__ void turn_heads(RopeArgs a) {
  float* x = a.qkv + blockIdx.y * a.row_width + blockIdx.x * int64_t{a.head_dim};
  turn_vector(x, a.table + blockIdx.y * int64_t{2} * a.half, a.half, a.interleaved);
}

template <KvPlane kPlane>
__global__ void store_rows(StoreArgs a) {
  store_group<kPlane>(a, blockIdx.x, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z));
}

// Queries, then keys, then values.
template <KvPlane kPlane>
__global__ void place_rows(HeadsArgs a) {
  const StoreArgs& s = a.store;
  const int vector = static_cast<int>(blockIdx.x);
  const int64_t row = blockIdx.y;
  float* x = a.qkv + row * s.row_width + vector * int64_t{s.head_dim};
  const bool query = vector < s.n_heads;
  if (vector < s.n_heads + s.n_kv_heads) {
    const float* weight = query ? a.q_norm : a.k_norm;
    if (weight != nullptr) norm_vector(x, weight, s.head_dim, a.eps);
    sync_warp();
    turn_vector(x, a.table + row * int64_t{2} * a.half, a.half, a.interleaved);
    sync_warp();
  }
  if (query) return;
  const int groups = (s.head_dim + kGroup - 1) / kGroup;
  for (int g = 0; g < groups; ++g) store_group<kPlane>(s, row, vector - s.n_heads, g);
}

}  // namespace

void head_norm(const HeadNormArgs& args, int64_t n_rows, Stream stream) {
  launch("head_norm", norm_heads, {args.n_heads, n_rows}, 32, 0, stream, args);
}

void rope(const RopeArgs& args, int64_t n_rows, Stream stream) {
  launch("rope", turn_heads, {args.half == 0 ? 0 : args.n_heads, n_rows}, 32, 0, stream, args);
}

void store_kv(const StoreArgs& args, KvPlane plane, int64_t n_rows, Stream stream) {
  const Shape grid{n_rows, 2 * args.n_kv_heads, (args.head_dim + kGroup - 1) / kGroup};
  if (plane == KvPlane::kF32)
    launch("store_kv f32", store_rows<KvPlane::kF32>, grid, 32, 0, stream, args);
  else if (plane == KvPlane::kF16)
    launch("store_kv f16", store_rows<KvPlane::kF16>, grid, 32, 0, stream, args);
  else
    launch("store_kv q8", store_rows<KvPlane::kQ8>, grid, 32, 0, stream, args);
}

void place_heads(const HeadsArgs& args, KvPlane plane, int64_t n_rows, Stream stream) {
  const Shape grid{args.store.n_heads + 2 * args.store.n_kv_heads, n_rows};
  if (plane == KvPlane::kF32)
    launch("place_heads f32", place_rows<KvPlane::kF32>, grid, 32, 0, stream, args);
  else if (plane == KvPlane::kF16)
    launch("place_heads f16", place_rows<KvPlane::kF16>, grid, 32, 0, stream, args);
  else
    launch("place_heads q8", place_rows<KvPlane::kQ8>, grid, 32, 0, stream, args);
}

}  // namespace glm::GLM_CUDA_SPACE
