// AVX-512 with VNNI: the dot instruction takes unsigned weights and signed inputs; the offset of
// the weights goes into the value the sum starts from. SPDX-License-Identifier: MIT
#define GLM_ISA isa_vnni
#include "kernels/cpu/lanes_avx512.h"
//
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/tiles_avx512.h"

namespace glm::GLM_ISA {
namespace {

// Two chains of four, so that one block is not a chain of eight latencies.
inline __m512i dot_unsigned(const __m512i* w, const QuantBlock& x, __m512i start) {
  __m512i even = start;
  __m512i odd = _mm512_setzero_si512();
  for (int g = 0; g < 8; g += 2) {
    even = _mm512_dpbusd_epi32(even, w[g], input_group(x, g));
    odd = _mm512_dpbusd_epi32(odd, w[g + 1], input_group(x, g + 1));
  }
  return _mm512_add_epi32(even, odd);
}

struct Q40 {
  static constexpr int kTileBytes = 256;
  static void prefetch(const uint8_t* tile) {
    for (int i = 0; i < 4; ++i) _mm_prefetch(tile + 4096 + 64 * i, _MM_HINT_T0);
  }
  static void unpack(const uint8_t* tile, __m512i* w) { unpack_nibbles(tile, w); }
  static __m512i dot(const __m512i* w, const QuantBlock& x) {
    return dot_unsigned(w, x, _mm512_set1_epi32(x.minus_8_sum));
  }
};

struct Q80 {
  static constexpr int kTileBytes = 512;
  static void prefetch(const uint8_t* tile) {
    for (int i = 0; i < 8; ++i) _mm_prefetch(tile + 2048 + 64 * i, _MM_HINT_T0);
  }
  static void unpack(const uint8_t* tile, __m512i* w) {
    const __m512i offset = _mm512_set1_epi8(-128);
    for (int g = 0; g < 8; ++g) w[g] = _mm512_xor_si512(load_bytes(tile + 64 * g), offset);
  }
  static __m512i dot(const __m512i* w, const QuantBlock& x) {  // starts at -128 sum
    return dot_unsigned(w, x, _mm512_slli_epi32(_mm512_set1_epi32(x.minus_8_sum), 4));
  }
};

int64_t int8_peak(int64_t steps) {
  constexpr int kChains = 12;
  __m512i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(i);
  __m512i weights = _mm512_set1_epi8(3);
  const __m512i inputs = _mm512_set1_epi8(5);
  for (int64_t s = 0; s < steps; ++s) {
    __asm__ volatile("" : "+v"(weights));
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], weights, inputs);
  }
  for (int i = 0; i < kChains; ++i) __asm__ volatile("" : : "v"(sums[i]));
  return steps * kChains * 64 * 2;
}

}  // namespace
}  // namespace glm::GLM_ISA

namespace glm {

const KernelTable* vnni_kernels() {
  static constexpr KernelTable kTable = isa_vnni::make_table("vnni",
                                                             isa_vnni::tile_product<isa_vnni::Q40>,
                                                             isa_vnni::tile_product<isa_vnni::Q80>,
                                                             isa_vnni::int8_peak);
  return &kTable;
}

}  // namespace glm
