// SPDX-License-Identifier: MIT
#include "kernels/device_roof.h"

#include <algorithm>
#include <chrono>
#include <functional>

namespace glm {
namespace {

constexpr int kPassesOfSample = 8;  // so that starting and waiting cost nothing
constexpr int64_t kBytesOfBlock = int64_t{128} << 10;

// Amount per second of the best sample.
double best_rate(Device& device, int repeats, const std::function<double()>& pass) {
  pass();  // loads the kernel
  device.wait();
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    double amount = 0;
    for (int p = 0; p < kPassesOfSample; ++p) amount += pass();
    device.wait();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, amount / seconds);
  }
  return best;
}

}  // namespace

DeviceRoofs measure_device_roofs(Device& device, int64_t bytes, int repeats) {
  const int64_t whole = std::max<int64_t>(4096, bytes / 4096 * 4096);
  const Tensor memory = device.allocate(DType::kU8, {whole});
  const Tensor copy = device.allocate(DType::kU8, {whole});
  const Tensor sink = device.allocate(DType::kI32, {1});
  const int64_t blocks = std::max<int64_t>(1, whole / kBytesOfBlock);
  DeviceRoofs roofs;
  roofs.read_bytes_per_second =
      best_rate(device, repeats, [&] { return read_on_device(device, memory, sink); });
  roofs.copy_bytes_per_second = best_rate(device, repeats, [&] {
    device.copy(copy, memory);
    return 2.0 * static_cast<double>(whole);
  });
  roofs.int8_per_second =
      best_rate(device, repeats, [&] { return int8_on_device(device, blocks, sink); });
  return roofs;
}

}  // namespace glm
