// SPDX-License-Identifier: MIT
#include "core/base/rng.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace glm {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u;
constexpr uint32_t kWeyl1 = 0xBB67AE85u;

#if defined(__x86_64__)
constexpr int kVectors = 4;                          // that wait for each other's multiplications
constexpr int64_t kVectorValues = 4 * 4 * kVectors;  // of one call of fill_vectors()

// Values 4 * counter and following, kVectorValues of them: four counters to a vector, a word of
// each in the lower half of 64 bits; what is in the upper halves does not matter.
[[gnu::target("avx2")]] void fill_vectors(float* out, uint64_t key, uint64_t counter) {
  __m256i c[kVectors][4];
  for (int v = 0; v < kVectors; ++v) {
    const auto first = static_cast<int64_t>(counter + 4 * static_cast<uint64_t>(v));
    c[v][0] = _mm256_add_epi64(_mm256_set1_epi64x(first), _mm256_setr_epi64x(0, 1, 2, 3));
    c[v][1] = _mm256_srli_epi64(c[v][0], 32);
    c[v][2] = c[v][3] = _mm256_setzero_si256();
  }
  const __m256i m0 = _mm256_set1_epi64x(kMultiplier0);
  const __m256i m1 = _mm256_set1_epi64x(kMultiplier1);
  auto k0 = static_cast<uint32_t>(key);
  auto k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m256i key0 = _mm256_set1_epi64x(k0);
    const __m256i key1 = _mm256_set1_epi64x(k1);
    for (auto& w : c) {
      const __m256i p0 = _mm256_mul_epu32(m0, w[0]);
      const __m256i p1 = _mm256_mul_epu32(m1, w[2]);
      w[0] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), w[1]), key0);
      w[1] = p1;
      w[2] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), w[3]), key1);
      w[3] = p0;
    }
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  const __m256 unit = _mm256_set1_ps(0x1p-24f);
  for (int v = 0; v < kVectors; ++v) {
    const __m256i low = _mm256_blend_epi32(c[v][0], _mm256_slli_epi64(c[v][1], 32), 0xAA);
    const __m256i high = _mm256_blend_epi32(c[v][2], _mm256_slli_epi64(c[v][3], 32), 0xAA);
    const __m256i even = _mm256_unpacklo_epi64(low, high);  // counters 0 and 2
    const __m256i odd = _mm256_unpackhi_epi64(low, high);
    const __m256i words[2] = {_mm256_permute2x128_si256(even, odd, 0x20),
                              _mm256_permute2x128_si256(even, odd, 0x31)};
    for (int half = 0; half < 2; ++half) {
      const __m256 steps = _mm256_cvtepi32_ps(_mm256_srli_epi32(words[half], 8));
      _mm256_storeu_ps(out + 16 * v + 8 * half, _mm256_mul_ps(steps, unit));
    }
  }
}
bool has_vectors() {
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
}
#else
constexpr int64_t kVectorValues = 1;
void fill_vectors(float*, uint64_t, uint64_t) {}
bool has_vectors() { return false; }
#endif

}  // namespace

std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  auto k0 = static_cast<uint32_t>(key);
  auto k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter_low),
                               static_cast<uint32_t>(counter_low >> 32),
                               static_cast<uint32_t>(counter_high),
                               static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMultiplier0} * c[0];
    const uint64_t p1 = uint64_t{kMultiplier1} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0,
         static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1,
         static_cast<uint32_t>(p0)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return c;
}

uint64_t stream_key(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325ull;  // FNV-1a, then mixed by philox
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  const auto bits = philox(seed, hash);
  return (uint64_t{bits[1]} << 32) | bits[0];
}

double uniform_double(uint64_t key, uint64_t counter) {
  const auto bits = philox(key, counter);
  const uint64_t mantissa = ((uint64_t{bits[1]} << 32) | bits[0]) >> 11;
  return static_cast<double>(mantissa) * 0x1p-53;
}

void fill_uniform(float* out, int64_t count, uint64_t key, int64_t first) {
  const bool vectors = has_vectors();
  int64_t i = 0;
  while (i < count) {
    const auto index = static_cast<uint64_t>(first + i);
    if (vectors && index % 4 == 0 && count - i >= kVectorValues) {
      fill_vectors(out + i, key, index / 4);
      i += kVectorValues;
      continue;
    }
    const auto bits = philox(key, index / 4);
    for (uint64_t lane = index % 4; lane < 4 && i < count; ++lane, ++i)
      out[i] = static_cast<float>(bits[lane] >> 8) * 0x1p-24f;
  }
}

}  // namespace glm
