// Ranks that are threads with an emulated GPU each, over the fake NCCL.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "parallel/nccl_communicator.h"
#include "tests/support/emulated_device.h"

namespace glm::testing_support {

// An environment variable for the length of a test. No thread is running yet, or none any more.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

// One of several threads, with an emulated GPU.
struct GpuRank {
  Communicator& hosts;
  EmulatedDevice& device;
  Communicator& group;  // of all ranks
  DeviceGroups& groups;
};

struct GpuJob {
  int ranks = 2;
  double timeout = 60;
  NcclUse nccl = NcclUse::kOn;
  const StepContext* context = nullptr;
  std::string library = GLM_FAKE_NCCL_LIBRARY;
  int64_t stage_bytes = int64_t{16} << 20;
  std::function<int(int)> gpu_of_rank = [](int rank) { return rank; };
};

inline void run_gpu_ranks(const GpuJob& job, const std::function<void(const GpuRank&)>& body) {
  const Variable library("GLM_NCCL_LIBRARY", job.library);
  CommOptions options;
  options.timeout_seconds = job.timeout;
  options.context = job.context;
  run_thread_ranks(job.ranks, options, [&](Communicator& hosts) {
    EmulatedDevice device(job.gpu_of_rank(hosts.rank()), int64_t{1} << 40, job.timeout);
    const auto groups = std::make_shared<DeviceGroups>(
        hosts, DeviceLink{&device, options, job.nccl, job.stage_bytes, open_nccl});
    const auto group = groups->wrap(hosts.split(0, hosts.rank(), "world"));
    body({hosts, device, *group, *groups});
  });
}

inline std::string gpu_error(const GpuJob& job,
                             const std::function<void(const GpuRank&)>& body,
                             ExitCode code = ExitCode::kCommunication) {
  try {
    run_gpu_ranks(job, body);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A tensor of the device whose rows are `value`, of the type f32.
inline Tensor filled(Device& device, int64_t rows, float value) {
  const Tensor tensor = device.allocate(DType::kF32, {rows, 4});
  std::vector<float> host(static_cast<size_t>(tensor.elements()), value);
  device.copy(tensor, host_tensor(host.data(), DType::kF32, {rows, 4}));
  device.wait();
  return tensor;
}

inline float first_of(Device& device, Tensor tensor) {
  float value = -1;
  device.copy(host_tensor(&value, DType::kF32, {1, 1}),
              tensor.slice(0, 1).reshaped({4}).slice(0, 1).reshaped({1, 1}));
  device.wait();
  return value;
}

}  // namespace glm::testing_support
