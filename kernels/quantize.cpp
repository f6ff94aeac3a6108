// Encoding and decoding of weight matrices, one block of 32 columns at a time.
// SPDX-License-Identifier: MIT
#include "kernels/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/base/check.h"

namespace glm {
namespace {

// Bytes of one row of one block: 16 (q40) or 32 (q80).
int64_t block_bytes(DType dtype) { return dtype == DType::kQ40 ? 16 : 32; }

// Where the bytes and the scale of (row, block) stand in the planes of a [*, blocks * 32] matrix.
struct BlockPlace {
  int64_t first_byte;
  int64_t group_stride;  // between groups of 4 bytes
  int64_t scale;
};

BlockPlace place_of(DType dtype, Packing packing, int64_t row, int64_t block, int64_t blocks) {
  const int64_t size = block_bytes(dtype);
  if (packing == Packing::kRows) return {(row * blocks + block) * size, 4, row * blocks + block};
  const int64_t tile = row / kTileRows * blocks + block;
  const int64_t lane = row % kTileRows;
  return {tile * kTileRows * size + lane * 4, kTileRows * 4, tile * kTileRows + lane};
}

// The loops of the encoders are free of calls and of branches, so that the compiler vectorises
// them; they are compiled for AVX2 a second time, and give the same bits there. What they call is
// always inlined, so that it is compiled for the same instructions.

[[gnu::always_inline]] inline uint32_t magnitude_bits(float x) {
  return std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu;
}

// The element of largest magnitude, the first of equals; NaN counts as larger than everything.
[[gnu::always_inline]] inline float largest_element(const float* x) {
  uint32_t top = 0;
  for (int64_t i = 0; i < kQuantBlock; ++i) top = std::max(top, magnitude_bits(x[i]));
  int64_t first = 0;
  while (magnitude_bits(x[first]) != top) ++first;
  return x[first];
}

[[gnu::always_inline]] inline uint16_t encode_q40(const float* x, uint8_t* bytes) {
  const float largest = largest_element(x);
  const uint16_t scale = largest == 0.0f ? uint16_t{0} : f32_to_f16(largest / -8.0f);
  const float d = f16_to_f32(scale);
  if (d == 0.0f) {
    std::memset(bytes, 0x88, kQuantBlock / 2);
    return scale;
  }
  int32_t q[kQuantBlock];
  for (int64_t i = 0; i < kQuantBlock; ++i) {
    const float step = x[i] / d + 8.5f;
    const float above = step > 0.0f ? step : 0.0f;  // NaN becomes 0
    q[i] = static_cast<int32_t>(above < 15.0f ? above : 15.0f);
  }
  for (int64_t j = 0; j < 16; ++j) bytes[j] = static_cast<uint8_t>(q[j] | (q[j + 16] << 4));
  return scale;
}

[[gnu::always_inline]] inline uint16_t encode_q80(const float* x, uint8_t* bytes) {
  // Adding and taking away 1.5 * 2^23 rounds to an integer, ties to even.
  constexpr float kRound = 12582912.0f;
  const uint16_t scale = f32_to_f16(std::fabs(largest_element(x)) / 127.0f);
  const float d = f16_to_f32(scale);
  if (d == 0.0f) {
    std::memset(bytes, 0, kQuantBlock);
    return scale;
  }
  for (int64_t i = 0; i < kQuantBlock; ++i) {
    const float step = x[i] / d;
    const float above = step > -127.0f ? step : -127.0f;
    const float bounded = above < 127.0f ? above : 127.0f;
    bytes[i] = static_cast<uint8_t>(static_cast<int32_t>((bounded + kRound) - kRound));
  }
  return scale;
}

// f32_to_bf16() without a branch.
[[gnu::always_inline]] inline uint16_t encode_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(magnitude_bits(x) > 0x7F800000u ? (bits >> 16) | 0x40u : rounded);
}

// What encode_rows() is asked for.
struct Encoding {
  const float* in;
  int64_t rows;
  int64_t cols;
  DType dtype;
  Packing packing;
  void* values;
  void* scales;
};

[[gnu::always_inline]] inline void encode_plain(const Encoding& e) {
  const int64_t count = e.rows * e.cols;
  auto* out = static_cast<uint16_t*>(e.values);
  if (e.dtype == DType::kF32) {
    if (count != 0) std::memcpy(e.values, e.in, static_cast<size_t>(count) * sizeof(float));
  } else if (e.dtype == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) out[i] = encode_bf16(e.in[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = f32_to_f16(e.in[i]);
  }
}

[[gnu::always_inline]] inline void encode_blocks(const Encoding& e) {
  const int64_t blocks = e.cols / kQuantBlock;
  auto* bytes = static_cast<uint8_t*>(e.values);
  auto* scale_plane = static_cast<uint16_t*>(e.scales);
  uint8_t block_values[kQuantBlock];
  for (int64_t row = 0; row < e.rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const BlockPlace place = place_of(e.dtype, e.packing, row, block, blocks);
      const float* x = e.in + row * e.cols + block * kQuantBlock;
      scale_plane[place.scale] =
          e.dtype == DType::kQ40 ? encode_q40(x, block_values) : encode_q80(x, block_values);
      for (int64_t g = 0; g < block_bytes(e.dtype) / 4; ++g)
        std::memcpy(bytes + place.first_byte + g * place.group_stride, block_values + g * 4, 4);
    }
  }
}

[[gnu::always_inline]] inline void encode(const Encoding& e) {
  if (is_quantized(e.dtype))
    encode_blocks(e);
  else
    encode_plain(e);
}

void encode_anywhere(const Encoding& e) { encode(e); }

#if defined(__x86_64__)
[[gnu::target("avx2")]] void encode_avx2(const Encoding& e) { encode(e); }
bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }
#else
void encode_avx2(const Encoding& e) { encode(e); }
bool has_avx2() { return false; }
#endif

void check_encodable(int64_t rows, DType dtype, Packing packing) {
  GLM_CHECK(dtype != DType::kI32 && dtype != DType::kU8, "matrix of {}", dtype_name(dtype));
  GLM_CHECK(packing == Packing::kRows || (is_quantized(dtype) && rows % kTileRows == 0),
            "tile16 of {} rows of {}",
            rows,
            dtype_name(dtype));
}

void decode_plain(const void* values, DType dtype, int64_t first, int64_t count, float* out) {
  const auto* wide = static_cast<const float*>(values);
  const auto* narrow = static_cast<const uint16_t*>(values);
  for (int64_t i = 0; i < count; ++i) {
    if (dtype == DType::kF32)
      out[i] = wide[first + i];
    else
      out[i] =
          dtype == DType::kF16 ? f16_to_f32(narrow[first + i]) : bf16_to_f32(narrow[first + i]);
  }
}

}  // namespace

float largest_magnitude(const float* x, int64_t n) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n && !std::isnan(largest); ++i)
    if (!(std::fabs(x[i]) <= largest)) largest = std::fabs(x[i]);
  return largest;
}

void encode_rows(const float* in,
                 int64_t rows,
                 int64_t cols,
                 DType dtype,
                 Packing packing,
                 void* values,
                 void* scales) {
  check_encodable(rows, dtype, packing);
  GLM_CHECK(!is_quantized(dtype) || cols % kQuantBlock == 0, "{} columns in blocks of 32", cols);
  const Encoding encoding = {in, rows, cols, dtype, packing, values, scales};
  static const bool avx2 = has_avx2();
  if (avx2)
    encode_avx2(encoding);
  else
    encode_anywhere(encoding);
}

void decode_row(const void* values,
                const void* scales,
                int64_t rows,
                int64_t cols,
                DType dtype,
                Packing packing,
                int64_t row,
                float* out) {
  check_encodable(rows, dtype, packing);
  GLM_CHECK(row >= 0 && row < rows, "row {} of {}", row, rows);
  if (!is_quantized(dtype)) {
    decode_plain(values, dtype, row * cols, cols, out);
    return;
  }
  GLM_CHECK(cols % kQuantBlock == 0, "{} columns in blocks of 32", cols);
  const int64_t blocks = cols / kQuantBlock;
  const auto* bytes = static_cast<const uint8_t*>(values);
  for (int64_t block = 0; block < blocks; ++block) {
    const BlockPlace place = place_of(dtype, packing, row, block, blocks);
    const float d = f16_to_f32(static_cast<const uint16_t*>(scales)[place.scale]);
    float* x = out + block * kQuantBlock;
    for (int64_t j = 0; j < block_bytes(dtype); ++j) {
      const uint8_t byte = bytes[place.first_byte + j / 4 * place.group_stride + j % 4];
      if (dtype == DType::kQ40) {
        x[j] = d * static_cast<float>((byte & 15) - 8);
        x[j + 16] = d * static_cast<float>((byte >> 4) - 8);
      } else {
        x[j] = d * static_cast<float>(static_cast<int8_t>(byte));
      }
    }
  }
}

}  // namespace glm
