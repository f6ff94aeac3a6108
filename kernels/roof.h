// The read bandwidth of the machine: what decoding is measured against.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace glm {

// Bytes per second that `threads` threads read together from memory, each its own
// `bytes_per_thread` (1 GiB or more to leave the caches), summing all words; the best of `repeats`
// passes. Allocates the memory for the time of the call; throws Error(kResources) without room.
double measure_read_bandwidth(int threads, int64_t bytes_per_thread, int repeats);

// Operations per second (a multiply and an add are two) of the int8 dot products of the fastest
// level of this CPU, data in registers or L1, all threads together.
double measure_int8_peak(int threads);

}  // namespace glm
