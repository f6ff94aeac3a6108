// SPDX-License-Identifier: MIT
#include "core/base/rng.h"

namespace glm {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u;
constexpr uint32_t kWeyl1 = 0xBB67AE85u;

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
  int64_t i = 0;
  while (i < count) {
    const auto index = static_cast<uint64_t>(first + i);
    const auto bits = philox(key, index / 4);
    for (uint64_t lane = index % 4; lane < 4 && i < count; ++lane, ++i)
      out[i] = static_cast<float>(bits[lane] >> 8) * 0x1p-24f;
  }
}

}  // namespace glm
