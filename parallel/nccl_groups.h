// Which way the tensors of a group's devices take: over NCCL where every rank of the group has a
// GPU of its own, through the hosts' memories otherwise. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/device.h"
#include "parallel/communicator.h"
#include "parallel/nccl_library.h"
#include "parallel/nccl_link.h"

namespace glm {

enum class NcclUse : uint8_t { kAuto, kOff, kOn };

// What a rank brings. All ranks of a job bring a device, which may be the host's, or none does.
struct DeviceLink {
  Device* device = nullptr;  // outlives all groups; null: groups stay as they are
  CommOptions options;
  NcclUse nccl = NcclUse::kAuto;  // kOn: Error(kUsage) where a group cannot use it
  // Memory of the device for pieces that wait to be summed; larger sums are taken in rounds.
  int64_t stage_bytes = int64_t{16} << 20;
  std::function<std::shared_ptr<const NcclLibrary>()> open = open_nccl;
};

class DeviceGroups : public std::enable_shared_from_this<DeviceGroups> {
 public:
  // Collective over world, which outlives all groups. Throws Error(kUsage) when ranks have
  // different versions of NCCL.
  DeviceGroups(Communicator& world, const DeviceLink& link);

  // The group, with a way for the tensors of its devices. Collective over it.
  std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> group);

  // Of all ranks: "NCCL 2.28.9", or "host memory: " and why.
  const std::string& transport_text() const { return transport_text_; }
  // Memory of the device that the groups of a rank take together, at most, beside NCCL's own.
  static int64_t buffer_bytes(const DeviceLink& link, int world_size);

  Device& device() { return *link_.device; }
  const CommOptions& options() const { return link_.options; }
  // f32, for pieces that wait to be summed. One for all groups: they work in stream order.
  Tensor stage() const { return stage_; }

 private:
  struct Fact {
    std::string device;  // "" for a host
    std::string host;
    int version = 0;      // of NCCL; 0: none
    bool shares = false;  // NCCL was told to let ranks share a GPU
    std::string reason;   // why there is none
  };
  Fact own_fact();
  void gather_facts();
  void check_versions() const;
  std::string rank_text(size_t rank) const;
  // "" when these ranks can use NCCL.
  std::string obstacle(const std::vector<size_t>& ranks) const;
  std::shared_ptr<NcclLink> make_link(Communicator& group);

  Communicator& world_;
  DeviceLink link_;
  std::shared_ptr<const NcclLibrary> library_;
  std::vector<Fact> facts_;
  std::string transport_text_;
  Tensor stage_;
  // Groups of the same ranks in the same order share one: NCCL takes much memory for each.
  std::map<std::vector<size_t>, std::shared_ptr<NcclLink>> links_;
};

}  // namespace glm
