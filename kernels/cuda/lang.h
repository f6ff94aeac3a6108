// The language of the kernels: CUDA under nvcc; under a C++ compiler the same words on the emulator
// (emulator.h). Everything that differs between the two is in this header. Kernels are __global__
// functions of one plain struct; shared memory is always the dynamic one. nvcc is told not to fuse
// multiplications and additions: fused() says where they are. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "kernels/cuda/launchers.h"

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define GLM_DEVICE __device__ __forceinline__
#define GLM_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define GLM_UNROLL _Pragma("unroll")
#define GLM_PRAGMA(text) _Pragma(#text)
#define GLM_UNROLL_BY(n) GLM_PRAGMA(unroll n)

#else

#include <bit>
#include <cmath>
#include <cstring>

#include "core/base/dtype.h"
#include "kernels/cuda/emulator.h"

#define __global__
#define GLM_DEVICE inline
#define GLM_BOUNDS(threads, blocks)
#define GLM_UNROLL
#define GLM_UNROLL_BY(n)
#define threadIdx (::glm::emulator::thread_index())
#define blockIdx (::glm::emulator::block_index())
#define blockDim (::glm::emulator::block_size())
#define gridDim (::glm::emulator::grid_size())
#define __syncthreads() (::glm::emulator::sync_block())

#endif

namespace glm::GLM_CUDA_SPACE {

struct alignas(8) Words2 {
  uint32_t v[2];
};
struct alignas(16) Words4 {
  uint32_t v[4];
};
struct alignas(16) Floats4 {
  float v[4];
};

#if defined(__CUDACC__)

extern __shared__ uint4 glm_shared_memory[];
template <class T>
GLM_DEVICE T* shared_as() {
  return reinterpret_cast<T*>(glm_shared_memory);
}

GLM_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
GLM_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
GLM_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
GLM_DEVICE float half_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
GLM_DEVICE uint16_t float_to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }
GLM_DEVICE uint16_t float_to_bfloat(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
// Two floats in one word, the first in its lower half.
GLM_DEVICE uint32_t half_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
GLM_DEVICE uint32_t bfloat_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// 2^x to about 2^-22 of it; 0 for -inf.
GLM_DEVICE float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GLM_DEVICE float square_root(float x) { return __fsqrt_rn(x); }
GLM_DEVICE float quotient(float a, float b) { return __fdiv_rn(a, b); }
GLM_DEVICE float nearest_even(float x) { return rintf(x); }
GLM_DEVICE float not_a_number() { return __uint_as_float(0x7FC00000u); }
GLM_DEVICE float lowest() { return __uint_as_float(0xFF800000u); }

GLM_DEVICE int lane_id() { return static_cast<int>(threadIdx.x % 32); }
template <class T>
GLM_DEVICE T shuffle_down(T x, int by) {
  return __shfl_down_sync(0xFFFFFFFFu, x, by);
}
template <class T>
GLM_DEVICE T shuffle_xor(T x, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, x, mask);
}
template <class T>
GLM_DEVICE T shuffle_from(T x, int lane) {
  return __shfl_sync(0xFFFFFFFFu, x, lane);
}
GLM_DEVICE uint32_t ballot(bool x) { return __ballot_sync(0xFFFFFFFFu, x); }
GLM_DEVICE int count_bits(uint32_t x) { return __popc(x); }
GLM_DEVICE void sync_warp() { __syncwarp(); }

// Weights are read once: they do not displace activations in L1.
GLM_DEVICE uint32_t stream_word(const void* p) {
  uint32_t x;
  asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(x) : "l"(p));
  return x;
}
GLM_DEVICE uint16_t stream_half(const uint16_t* p) {
  uint16_t x;
  asm("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(x) : "l"(p));
  return x;
}
GLM_DEVICE Words4 stream_words(const void* p) {
  Words4 x;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(x.v[0]), "=r"(x.v[1]), "=r"(x.v[2]), "=r"(x.v[3])
      : "l"(p));
  return x;
}

// c += a b: a 16 x 32, b 32 x 8, c 16 x 8. Lane l holds of a: row l / 4 (words 0 and 2) and l / 4 +
// 8 (1 and 3), columns 4 (l % 4) + 0..3 and the same + 16 (2 and 3); of b: column l / 4, rows as
// a's columns; of c: rows l / 4 (0, 1) and l / 4 + 8 (2, 3), columns 2 (l % 4) + 0..1.
GLM_DEVICE void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same for a 16 x 16, b 16 x 8: a's columns are 2 (l % 4) + 0..1 and the same + 8, two bf16 to
// a word.
GLM_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

GLM_DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

GLM_DEVICE unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
// Four matrices of 8 x 8 halves in shared memory, turned: lane l points to row l % 8 of matrix
// l / 8, 16 bytes, and gets of each rows 2 (l % 4) + 0..1 of column l / 4, as b of an mma wants it
// of a matrix that stands row by row.
GLM_DEVICE void turned_matrices(uint32_t (&out)[4], const uint16_t* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// 16 bytes to shared memory, of zeros unless `there`, on their way while the thread goes on; copies
// since the last close_copies() are a group, wait_copies<n>() waits for all groups but the last n.
// Others see them after a barrier.
GLM_DEVICE void copy_16(uint16_t* to, const uint16_t* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
               "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
}
GLM_DEVICE void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kBut>
GLM_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kBut) : "memory");
}

#else

template <class T>
T* shared_as() {
  return static_cast<T*>(emulator::shared_memory());
}

inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float half_to_float(uint16_t bits) { return f16_to_f32(bits); }
inline uint16_t float_to_half(float x) { return f32_to_f16(x); }
inline uint16_t float_to_bfloat(float x) { return f32_to_bf16(x); }
inline uint32_t half_pair(float low, float high) {
  return static_cast<uint32_t>(f32_to_f16(low)) | static_cast<uint32_t>(f32_to_f16(high)) << 16;
}
inline uint32_t bfloat_pair(float low, float high) {
  return static_cast<uint32_t>(f32_to_bf16(low)) | static_cast<uint32_t>(f32_to_bf16(high)) << 16;
}
inline float power_of_two(float x) { return std::exp2(x); }
inline float square_root(float x) { return std::sqrt(x); }
inline float quotient(float a, float b) { return a / b; }
inline float nearest_even(float x) { return std::nearbyint(x); }
inline float not_a_number() { return std::bit_cast<float>(0x7FC00000u); }
inline float lowest() { return std::bit_cast<float>(0xFF800000u); }

inline int lane_id() { return emulator::lane(); }
inline void join_nothing(emulator::Slot*) {}

template <class T>
T value_of(const emulator::Slot& slot) {
  T out;
  std::memcpy(&out, slot.in, sizeof out);
  return out;
}
// As on the device, lanes that reach beyond the warp keep their own value.
template <class T>
T shuffle_down(T x, int by) {
  const int lane = emulator::lane();
  const emulator::Slot& own = emulator::exchange(&x, sizeof x, join_nothing);
  return lane + by < 32 ? value_of<T>((&own)[by]) : x;
}
template <class T>
T shuffle_xor(T x, int mask) {
  const int lane = emulator::lane();
  const emulator::Slot& own = emulator::exchange(&x, sizeof x, join_nothing);
  return value_of<T>((&own)[(lane ^ mask) - lane]);
}
template <class T>
T shuffle_from(T x, int from) {
  const int lane = emulator::lane();
  const emulator::Slot& own = emulator::exchange(&x, sizeof x, join_nothing);
  return value_of<T>((&own)[from - lane]);
}
inline uint32_t ballot(bool x) {
  const int lane = emulator::lane();
  const emulator::Slot* first = &emulator::exchange(&x, sizeof x, join_nothing) - lane;
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= uint32_t{value_of<bool>(first[i])} << i;
  return bits;
}
inline int count_bits(uint32_t x) { return std::popcount(x); }
inline void sync_warp() { ballot(true); }

inline uint32_t stream_word(const void* p) { return *static_cast<const uint32_t*>(p); }
inline uint16_t stream_half(const uint16_t* p) { return *p; }
inline Words4 stream_words(const void* p) { return *static_cast<const Words4*>(p); }

// What a lane brings to a product of a warp.
template <class C>
struct MmaOperands {
  uint32_t a[4];
  uint32_t b[2];
  C c[4];
};
void join_mma_s8(emulator::Slot* slots);
void join_mma_bf16(emulator::Slot* slots);
void join_mma_f16(emulator::Slot* slots);
void join_turned_matrices(emulator::Slot* slots);

inline void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaOperands<int32_t> mine;
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  std::memcpy(mine.c, c, sizeof mine.c);
  std::memcpy(c, emulator::exchange(&mine, sizeof mine, join_mma_s8).out, sizeof c);
}
inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaOperands<float> mine{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  std::memcpy(c, emulator::exchange(&mine, sizeof mine, join_mma_bf16).out, sizeof c);
}
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaOperands<float> mine{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  std::memcpy(c, emulator::exchange(&mine, sizeof mine, join_mma_f16).out, sizeof c);
}

inline void turned_matrices(uint32_t (&out)[4], const uint16_t* row) {
  std::memcpy(out, emulator::exchange(&row, sizeof row, join_turned_matrices).out, sizeof out);
}
inline void copy_16(uint16_t* to, const uint16_t* from, bool there) {
  emulator::copy_later(to, there ? from : nullptr, 16);
}
inline void close_copies() { emulator::close_copies(); }
template <int kBut>
void wait_copies() {
  emulator::wait_copies(kBut);
}

#endif

}  // namespace glm::GLM_CUDA_SPACE
