// fault_point() of the test builds: does to this process what GLM_FAULT asks for. Without the
// variable it does nothing. SPDX-License-Identifier: MIT
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <unistd.h>

#include "core/base/device.h"
#include "core/base/fault.h"
#include "tests/faults/fault_plan.h"

namespace glm {

namespace {

void write(Tensor data, std::vector<uint8_t>& bytes) {
  if (data.device == nullptr || data.device->is_host()) {
    std::memcpy(data.data, bytes.data(), bytes.size());
    return;
  }
  data.device->copy(data.reshaped({data.elements()}),
                    host_tensor(bytes.data(), data.dtype, {data.elements()}));
  data.device->wait();
}

// All bits set: NaN in every float type, -1 in every integer.
void corrupt(Tensor data) {
  std::vector<uint8_t> ones(static_cast<size_t>(data.bytes()), 0xff);
  write(data, ones);
}

// Ones everywhere: numbers that look well and are wrong.
void skew(Tensor data) {
  if (data.dtype != DType::kF32) fail(ExitCode::kUsage, "GLM_FAULT: skew is for numbers in f32");
  const std::vector<float> ones(static_cast<size_t>(data.elements()), 1.0f);
  std::vector<uint8_t> bytes(static_cast<size_t>(data.bytes()));
  std::memcpy(bytes.data(), ones.data(), bytes.size());
  write(data, bytes);
}

}  // namespace

void fault_point(const FaultPlace& place, Tensor data) {
  using testing_support::FaultAction;
  const char* text = std::getenv("GLM_FAULT");
  if (text == nullptr) return;
  const testing_support::FaultPlan plan = testing_support::parse_fault_plan(text);
  if (!plan.meets(place)) return;
  switch (plan.action) {
    case FaultAction::kKill:
      raise(SIGKILL);
      return;
    case FaultAction::kStop:
      raise(SIGSTOP);
      return;
    case FaultAction::kExit:
      _exit(0);
    case FaultAction::kThrow:
      fail(ExitCode::kRuntime, "injected error at {}", place.point);
    case FaultAction::kSleep:
      std::this_thread::sleep_for(std::chrono::duration<double>(plan.seconds));
      return;
    case FaultAction::kCorrupt:
      if (data.absent() || data.bytes() == 0)
        fail(ExitCode::kUsage, "GLM_FAULT: nothing to corrupt at {}", place.point);
      corrupt(data);
      return;
    case FaultAction::kSkew:
      if (!data.absent() && data.bytes() > 0) skew(data);
      return;
  }
}

}  // namespace glm
