// One way to start a kernel, on a stream or on the emulator. SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

#include "kernels/cuda/lang.h"

namespace glm::GLM_CUDA_SPACE {

struct Shape {
  int64_t x = 1;
  int64_t y = 1;
  int64_t z = 1;
};

// Names of kernels in errors; shared memory beyond 48 KiB is asked for first.
template <class Args>
void launch(const char* name,
            void (*kernel)(Args),
            Shape grid,
            int threads,
            size_t shared_bytes,
            Stream stream,
            const Args& args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535)
    launch_failed(name, "more blocks than a grid holds");
  const auto x = static_cast<unsigned>(grid.x);
  const auto y = static_cast<unsigned>(grid.y);
  const auto z = static_cast<unsigned>(grid.z);
#if defined(__CUDACC__)
  if (shared_bytes > (48 << 10)) {
    const cudaError_t status = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (status != cudaSuccess) launch_failed(name, cudaGetErrorString(status));
  }
  kernel<<<dim3(x, y, z),
           static_cast<unsigned>(threads),
           shared_bytes,
           static_cast<cudaStream_t>(stream)>>>(args);
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) launch_failed(name, cudaGetErrorString(status));
#else
  auto* queue = static_cast<emulator::Queue*>(stream);
  const emulator::Index block = {static_cast<unsigned>(threads), 1, 1};
  const auto work = [=] {
    const bool backwards = queue != nullptr && queue->backwards();
    emulator::run(name, {x, y, z}, block, shared_bytes, backwards, [&] { kernel(args); });
  };
  queue == nullptr ? work() : queue->enqueue(work);
#endif
}

}  // namespace glm::GLM_CUDA_SPACE
