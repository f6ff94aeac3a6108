// Walk over a row of tiles with 512-bit registers: a lane is a row of the matrix, eight unpacked
// vectors of weights meet up to eight input rows. Format gives the bytes of a tile, its unpacking
// and the exact integer dot product of a block. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace glm::GLM_ISA {

inline __m512i load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }

// Bytes 4 g .. 4 g + 3 of an input block in every lane.
inline __m512i input_group(const QuantBlock& x, int g) {
  int32_t word;
  std::memcpy(&word, x.q + 4 * g, 4);
  return _mm512_set1_epi32(word);
}

// q40: vectors 0..3 are elements 0..15 of the block (low nibbles), 4..7 elements 16..31.
inline void unpack_nibbles(const uint8_t* tile, __m512i* w) {
  const __m512i mask = _mm512_set1_epi8(15);
  for (int g = 0; g < 4; ++g) {
    const __m512i bytes = load_bytes(tile + 64 * g);
    w[g] = _mm512_and_si512(bytes, mask);
    w[g + 4] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
  }
}

template <class Format, int X>
inline void tile_block(const TileProduct& a, int first_input) {
  const QuantBlock* x[X];
  for (int i = 0; i < X; ++i) x[i] = a.inputs[first_input + i];
  __m512 y[X] = {};
  for (int64_t begin = 0; begin < a.blocks; begin += a.shard_blocks) {
    const int64_t end = begin + a.shard_blocks < a.blocks ? begin + a.shard_blocks : a.blocks;
    __m512 p[X];
    for (int i = 0; i < X; ++i) p[i] = _mm512_setzero_ps();
    for (int64_t b = begin; b < end; ++b) {
      __m512i w[8];
      const uint8_t* tile = a.values + b * Format::kTileBytes;
      Format::prefetch(tile);
      Format::unpack(tile, w);
      const __m512 scales =
          _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a.scales + b * 16)));
      for (int i = 0; i < X; ++i) {
        const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(x[i][b].d));
        p[i] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(Format::dot(w, x[i][b])), p[i]);
      }
    }
    for (int i = 0; i < X; ++i) y[i] = begin == 0 ? p[i] : _mm512_add_ps(y[i], p[i]);
  }
  for (int i = 0; i < X; ++i) _mm512_storeu_ps(a.out + (first_input + i) * 16, y[i]);
}

template <class Format>
inline void tile_product(const TileProduct& a) {
  if (a.blocks == 0) {
    std::memset(a.out, 0, static_cast<size_t>(a.n_inputs) * 64);
    return;
  }
  int i = 0;
  for (; i + 8 <= a.n_inputs; i += 8) tile_block<Format, 8>(a, i);
  for (; i + 4 <= a.n_inputs; i += 4) tile_block<Format, 4>(a, i);
  for (; i + 2 <= a.n_inputs; i += 2) tile_block<Format, 2>(a, i);
  for (; i < a.n_inputs; ++i) tile_block<Format, 1>(a, i);
}

}  // namespace glm::GLM_ISA
