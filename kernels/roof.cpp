// SPDX-License-Identifier: MIT
#include "kernels/roof.h"

#include <algorithm>
#include <chrono>

#include "core/base/check.h"
#include "kernels/cpu/simd_levels.h"
#include "kernels/cpu/thread_pool.h"

namespace glm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int64_t kInt8Steps = 1 << 22;

}  // namespace

RoofProbe::RoofProbe(int threads, int64_t bytes_per_thread)
    : threads_(threads),
      bytes_(std::max<int64_t>(4096, bytes_per_thread / 4096 * 4096)),
      device_(make_cpu_device()),
      memory_(device_->allocate(DType::kU8, {threads_, bytes_})),
      pool_(std::make_unique<ThreadPool>(threads)) {
  pool_->parallel_for(threads_, 1, [&](int64_t begin, int64_t end, int) {
    std::fill(
        memory_.as<uint8_t>() + begin * bytes_, memory_.as<uint8_t>() + end * bytes_, uint8_t{1});
  });
}

RoofProbe::~RoofProbe() = default;

RoofProbe::Pass RoofProbe::read() {
  const KernelTable& table = choose_kernels("");
  std::atomic<uint64_t> sum{0};
  const Clock::time_point start = Clock::now();
  pool_->parallel_for(threads_, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      sum += table.sum_words(memory_.as<uint8_t>() + i * bytes_, bytes_);
  });
  const Pass pass{static_cast<double>(threads_ * bytes_), seconds_since(start)};
  const auto words = static_cast<uint64_t>(threads_ * bytes_ / 8);
  GLM_CHECK(sum == words * 0x0101010101010101u, "memory does not hold what was written");
  return pass;
}

RoofProbe::Pass RoofProbe::int8() {
  const KernelTable& table = choose_kernels("");
  std::atomic<int64_t> operations{0};
  const Clock::time_point start = Clock::now();
  pool_->parallel_for(threads_, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) operations += table.int8_peak(kInt8Steps);
  });
  const double seconds = seconds_since(start);
  return {static_cast<double>(operations.load()), seconds};
}

RoofRates measure_roofs(int threads, int64_t bytes_per_thread, int repeats) {
  RoofProbe probe(threads, bytes_per_thread);
  RoofRates best;
  for (int i = 0; i < repeats; ++i) {
    const RoofProbe::Pass read = probe.read();
    best.bytes_per_second = std::max(best.bytes_per_second, read.amount / read.seconds);
    const RoofProbe::Pass int8 = probe.int8();
    best.int8_per_second = std::max(best.int8_per_second, int8.amount / int8.seconds);
  }
  return best;
}

}  // namespace glm
