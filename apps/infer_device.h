// Which device each rank computes on: a GPU of its own where there is one, else the CPU.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/infer_options.h"
#include "core/base/device.h"
#include "parallel/mpi_session.h"

namespace glm {

// What a rank finds, and what it was asked to use.
struct RankGpus {
  std::string host;
  DeviceChoice wish = DeviceChoice::kAuto;
  std::vector<std::string> ids;  // of the GPUs that it sees
};

// Of each rank, an index into its ids, or -1 for the CPU. GPUs of a host go to its ranks in order,
// one each; with `shared` further ranks share them. Throws Error(kUsage) when there are fewer GPUs
// than ranks that must have one, Error(kResources) when such a rank sees none.
std::vector<int> assign_gpus(const std::vector<RankGpus>& ranks, bool shared);

// This rank's device. Collective; throws what assign_gpus throws, once for all ranks.
std::unique_ptr<Device> open_device(MpiSession& session, const InferOptions& options);

}  // namespace glm
