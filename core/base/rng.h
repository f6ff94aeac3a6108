// Counter-based random numbers: value number i of a stream is a pure function of (key, i), the same
// on any rank, thread or device. Philox 4x32-10 (Salmon et al., SC 2011). SPDX-License-Identifier:
// MIT
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace glm {

// 128 random bits for (key, counter).
std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0);

// A well-mixed key from a seed and a name, e.g. of a tensor.
uint64_t stream_key(uint64_t seed, std::string_view name);

// In [0, 1), 53 random bits.
double uniform_double(uint64_t key, uint64_t counter);

// In [0, 1), 24 random bits: out[i] is value first + i of the stream.
void fill_uniform(float* out, int64_t count, uint64_t key, int64_t first);

}  // namespace glm
