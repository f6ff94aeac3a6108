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

// All bits set: NaN in every float type, -1 in every integer.
void corrupt(Tensor data) {
  std::vector<uint8_t> ones(static_cast<size_t>(data.bytes()), 0xff);
  if (data.device == nullptr || data.device->is_host()) {
    std::memcpy(data.data, ones.data(), ones.size());
    return;
  }
  const Tensor bytes = data.reshaped({data.elements()});
  data.device->copy(bytes, host_tensor(ones.data(), data.dtype, {data.elements()}));
  data.device->wait();
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
  }
}

}  // namespace glm
