// The roofs of the machine: what decoding and prompts are measured against.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>

#include "core/base/device.h"

namespace glm {

class ThreadPool;

// Measures in passes, so that the ranks of a host can take each pass together and divide what they
// did by the time of the slowest.
class RoofProbe {
 public:
  // Bytes or operations of all threads, and how long they took.
  struct Pass {
    double amount = 0;
    double seconds = 0;
  };

  // Allocates and writes the memory that is read, `bytes_per_thread` (1 GiB or more to leave the
  // caches) for each of the threads; throws Error(kResources) without room.
  RoofProbe(int threads, int64_t bytes_per_thread);
  ~RoofProbe();
  RoofProbe(const RoofProbe&) = delete;
  RoofProbe& operator=(const RoofProbe&) = delete;

  // Each thread sums all words of its own memory.
  Pass read();
  // Operations (a multiply and an add are two) of the int8 dot products of the fastest level of
  // this CPU, data in registers or L1.
  Pass int8();

 private:
  int threads_;
  int64_t bytes_;  // of a thread
  std::unique_ptr<Device> device_;
  Tensor memory_;
  std::unique_ptr<ThreadPool> pool_;
};

struct RoofRates {
  double bytes_per_second = 0;
  double int8_per_second = 0;
};
// The best of `repeats` passes of one process.
RoofRates measure_roofs(int threads, int64_t bytes_per_thread, int repeats);

}  // namespace glm
