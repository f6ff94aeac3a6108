// AVX2 with FMA and F16C: half a tile (8 rows) at a time, up to four input rows.
// SPDX-License-Identifier: MIT
#define GLM_ISA isa_avx2
#include "kernels/cpu/lanes_avx2.h"
//
#include "kernels/cpu/isa_table.h"

namespace glm::GLM_ISA {
namespace {

inline __m256i load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

inline __m256i input_group(const QuantBlock& x, int g) {
  int32_t word;
  std::memcpy(&word, x.q + 4 * g, 4);
  return _mm256_set1_epi32(word);
}

// `tile` points at the half's first byte; groups of 4 columns are 64 bytes apart.
struct Q40 {
  static constexpr int kTileBytes = 256;
  static void unpack(const uint8_t* tile, __m256i* w) {
    const __m256i mask = _mm256_set1_epi8(15);
    for (int g = 0; g < 4; ++g) {
      const __m256i bytes = load_bytes(tile + 64 * g);
      w[g] = _mm256_and_si256(bytes, mask);
      w[g + 4] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    }
  }
  // Eight pair sums of at most 2 * 15 * 127 = 3810 fit 16 bits.
  static __m256i dot(const __m256i* w, const QuantBlock& x) {
    __m256i pairs = _mm256_maddubs_epi16(w[0], input_group(x, 0));
    for (int g = 1; g < 8; ++g)
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[g], input_group(x, g)));
    return _mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)),
                            _mm256_set1_epi32(x.minus_8_sum));
  }
};

struct Q80 {
  static constexpr int kTileBytes = 512;
  static void unpack(const uint8_t* tile, __m256i* w) {
    for (int g = 0; g < 8; ++g) w[g] = load_bytes(tile + 64 * g);
  }
  // |w| times x with the sign of w: a pair sum is at most 2 * 128 * 127 = 32512.
  static __m256i dot(const __m256i* w, const QuantBlock& x) {
    __m256i sum = _mm256_setzero_si256();
    for (int g = 0; g < 8; ++g) {
      const __m256i turned = _mm256_sign_epi8(input_group(x, g), w[g]);
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[g]), turned);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return sum;
  }
};

template <class Format, int X>
inline void tile_block(const TileProduct& a, int first_input, int half) {
  const QuantBlock* x[X];
  for (int i = 0; i < X; ++i) x[i] = a.inputs[first_input + i];
  __m256 y[X] = {};
  for (int64_t begin = 0; begin < a.blocks; begin += a.shard_blocks) {
    const int64_t end = begin + a.shard_blocks < a.blocks ? begin + a.shard_blocks : a.blocks;
    __m256 p[X];
    for (int i = 0; i < X; ++i) p[i] = _mm256_setzero_ps();
    for (int64_t b = begin; b < end; ++b) {
      __m256i w[8];
      Format::unpack(a.values + b * Format::kTileBytes + 32 * half, w);
      const __m256 scales = _mm256_cvtph_ps(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(a.scales + b * 16 + 8 * half)));
      for (int i = 0; i < X; ++i) {
        const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(x[i][b].d));
        p[i] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(Format::dot(w, x[i][b])), p[i]);
      }
    }
    for (int i = 0; i < X; ++i) y[i] = begin == 0 ? p[i] : _mm256_add_ps(y[i], p[i]);
  }
  for (int i = 0; i < X; ++i) _mm256_storeu_ps(a.out + (first_input + i) * 16 + 8 * half, y[i]);
}

template <class Format>
void tile_product(const TileProduct& a) {
  if (a.blocks == 0) {
    std::memset(a.out, 0, static_cast<size_t>(a.n_inputs) * 64);
    return;
  }
  for (int half = 0; half < 2; ++half) {
    int i = 0;
    for (; i + 4 <= a.n_inputs; i += 4) tile_block<Format, 4>(a, i, half);
    for (; i < a.n_inputs; ++i) tile_block<Format, 1>(a, i, half);
  }
}

int64_t int8_peak(int64_t steps) {
  constexpr int kChains = 6;
  __m256i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_epi32(i);
  __m256i weights = _mm256_set1_epi8(3);
  const __m256i inputs = _mm256_set1_epi8(5);
  for (int64_t s = 0; s < steps; ++s) {
    __asm__ volatile("" : "+x"(weights));
    for (int i = 0; i < kChains; ++i)
      sums[i] = _mm256_add_epi32(
          sums[i],
          _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(weights, sums[i]), inputs),
                            _mm256_set1_epi16(1)));
  }
  for (int i = 0; i < kChains; ++i) __asm__ volatile("" : : "x"(sums[i]));
  return steps * kChains * 32 * 2;
}

}  // namespace
}  // namespace glm::GLM_ISA

namespace glm {

const KernelTable* avx2_kernels() {
  static constexpr KernelTable kTable = isa_avx2::make_table("avx2",
                                                             isa_avx2::tile_product<isa_avx2::Q40>,
                                                             isa_avx2::tile_product<isa_avx2::Q80>,
                                                             isa_avx2::int8_peak);
  return &kTable;
}

}  // namespace glm
