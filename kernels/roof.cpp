// SPDX-License-Identifier: MIT
#include "kernels/roof.h"

#include <algorithm>
#include <chrono>
#include <new>

#include "core/base/check.h"
#include "core/base/device.h"
#include "kernels/cpu/simd_levels.h"
#include "kernels/cpu/thread_pool.h"

namespace glm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

double measure_read_bandwidth(int threads, int64_t bytes_per_thread, int repeats) {
  const KernelTable& table = choose_kernels("");
  const int64_t bytes = std::max<int64_t>(4096, bytes_per_thread / 4096 * 4096);
  const auto device = make_cpu_device();
  const Tensor memory = device->allocate(DType::kU8, {threads, bytes});
  ThreadPool pool(threads);
  const auto part = [&](int64_t i) { return memory.as<uint8_t>() + i * bytes; };
  pool.parallel_for(threads, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) std::fill(part(i), part(i) + bytes, uint8_t{1});
  });
  double best = 0;
  std::atomic<uint64_t> sums{0};
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    pool.parallel_for(threads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) sums += table.sum_words(part(i), bytes);
    });
    best = std::max(best, static_cast<double>(threads * bytes) / seconds_since(start));
  }
  const auto words = static_cast<uint64_t>(threads * bytes / 8);
  GLM_CHECK(sums == static_cast<uint64_t>(repeats) * words * 0x0101010101010101u,
            "memory does not hold what was written");
  return best;
}

double measure_int8_peak(int threads) {
  const KernelTable& table = choose_kernels("");
  constexpr int64_t kSteps = 1 << 22;
  ThreadPool pool(threads);
  double best = 0;
  std::atomic<int64_t> operations{0};
  for (int repeat = 0; repeat < 5; ++repeat) {
    operations = 0;
    const Clock::time_point start = Clock::now();
    pool.parallel_for(threads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) operations += table.int8_peak(kSteps);
    });
    best = std::max(best, static_cast<double>(operations.load()) / seconds_since(start));
  }
  return best;
}

}  // namespace glm
