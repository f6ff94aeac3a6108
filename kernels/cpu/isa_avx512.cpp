// AVX-512 without VNNI: products in pairs of bytes, sums in 16 bits where they fit.
// SPDX-License-Identifier: MIT
#define GLM_ISA isa_avx512
#include "kernels/cpu/lanes_avx512.h"
//
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/tiles_avx512.h"

namespace glm::GLM_ISA {
namespace {

struct Q40 {
  static constexpr int kTileBytes = 256;
  static void prefetch(const uint8_t*) {}
  static void unpack(const uint8_t* tile, __m512i* w) { unpack_nibbles(tile, w); }
  // Eight pair sums of at most 2 * 15 * 127 = 3810 fit 16 bits.
  static __m512i dot(const __m512i* w, const QuantBlock& x) {
    __m512i pairs = _mm512_maddubs_epi16(w[0], input_group(x, 0));
    for (int g = 1; g < 8; ++g)
      pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w[g], input_group(x, g)));
    return _mm512_add_epi32(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)),
                            _mm512_set1_epi32(x.minus_8_sum));
  }
};

struct Q80 {
  static constexpr int kTileBytes = 512;
  static void prefetch(const uint8_t*) {}
  static void unpack(const uint8_t* tile, __m512i* w) {
    for (int g = 0; g < 8; ++g) w[g] = load_bytes(tile + 64 * g);
  }
  // |w| times x with the sign of w: a pair sum is at most 2 * 128 * 127 = 32512.
  static __m512i dot(const __m512i* w, const QuantBlock& x) {
    __m512i sum = _mm512_setzero_si512();
    for (int g = 0; g < 8; ++g) {
      const __m512i input = input_group(x, g);
      const __m512i turned =
          _mm512_mask_sub_epi8(input, _mm512_movepi8_mask(w[g]), _mm512_setzero_si512(), input);
      const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w[g]), turned);
      sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    return sum;
  }
};

int64_t int8_peak(int64_t steps) {
  constexpr int kChains = 8;
  __m512i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(i);
  __m512i weights = _mm512_set1_epi8(3);
  const __m512i inputs = _mm512_set1_epi8(5);
  for (int64_t s = 0; s < steps; ++s) {
    __asm__ volatile("" : "+v"(weights));
    for (int i = 0; i < kChains; ++i)
      sums[i] = _mm512_add_epi32(
          sums[i],
          _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_xor_si512(weights, sums[i]), inputs),
                            _mm512_set1_epi16(1)));
  }
  for (int i = 0; i < kChains; ++i) __asm__ volatile("" : : "v"(sums[i]));
  return steps * kChains * 64 * 2;
}

}  // namespace
}  // namespace glm::GLM_ISA

namespace glm {

const KernelTable* avx512_kernels() {
  static constexpr KernelTable kTable =
      isa_avx512::make_table("avx512",
                             isa_avx512::tile_product<isa_avx512::Q40>,
                             isa_avx512::tile_product<isa_avx512::Q80>,
                             isa_avx512::int8_peak);
  return &kTable;
}

}  // namespace glm
