// SPDX-License-Identifier: MIT
#include "parallel/nccl_groups.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <unistd.h>

#include "parallel/nccl_communicator.h"

namespace glm {
namespace {

std::string own_host() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

bool told_to_share() {
  const char* value = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return value != nullptr && std::string(value) == "1";
}

// Cuts the first line off.
std::string take_field(std::string& text) {
  const size_t end = text.find('\n');
  const std::string field = text.substr(0, end);
  text = end == std::string::npos ? std::string() : text.substr(end + 1);
  return field;
}

}  // namespace

std::string nccl_number_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

DeviceGroups::DeviceGroups(Communicator& world, const DeviceLink& link)
    : world_(world), link_(link) {
  GLM_CHECK(link_.device != nullptr, "groups of devices without a device");
  gather_facts();
  check_versions();
  std::vector<size_t> all(facts_.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  const std::string reason = obstacle(all);
  const int version = facts_[static_cast<size_t>(world.rank())].version;
  transport_text_ = reason.empty() ? "NCCL " + nccl_number_text(version) : "host memory: " + reason;
}

int64_t DeviceGroups::buffer_bytes(const DeviceLink& link, int world_size) {
  return world_size > 1 ? link.stage_bytes : 0;
}

DeviceGroups::Fact DeviceGroups::own_fact() {
  Fact fact;
  fact.host = own_host();
  if (link_.device->is_host()) return fact;
  fact.device = link_.device->id();
  if (link_.nccl == NcclUse::kOff || world_.size() == 1) {
    fact.reason = "NCCL is switched off";
    return fact;
  }
  try {
    library_ = link_.open();
    fact.version = library_->version();
    fact.shares = told_to_share() && fact.version >= kSharedGpuNccl;
  } catch (const Error& error) {
    fact.reason = escaped(error.what(), 1000);
  }
  return fact;
}

void DeviceGroups::gather_facts() {
  const Fact own = own_fact();
  const std::string text = fmt::format(
      "{}\n{}\n{}\n{}\n{}", own.device, own.host, own.version, own.shares ? 1 : 0, own.reason);
  for (std::string line : all_gather_strings(world_, text)) {
    Fact fact;
    fact.device = take_field(line);
    fact.host = take_field(line);
    fact.version = std::atoi(take_field(line).c_str());
    fact.shares = take_field(line) == "1";
    fact.reason = line;
    facts_.push_back(fact);
  }
}

std::string DeviceGroups::rank_text(size_t rank) const {
  return fmt::format("rank {} (host {})", rank, escaped(facts_[rank].host));
}

// The same on every rank, so every rank leaves alike.
void DeviceGroups::check_versions() const {
  size_t first = facts_.size();
  for (size_t rank = 0; rank < facts_.size(); ++rank) {
    const int version = facts_[rank].version;
    if (version == 0) continue;
    if (first == facts_.size()) first = rank;
    if (version == facts_[first].version) continue;
    fail(ExitCode::kUsage,
         "ranks have different versions of NCCL: {} has {}, {} has {}; load the same one on all "
         "hosts, or name its file in GLM_NCCL_LIBRARY",
         rank_text(first),
         nccl_number_text(facts_[first].version),
         rank_text(rank),
         nccl_number_text(version));
  }
}

std::string DeviceGroups::obstacle(const std::vector<size_t>& ranks) const {
  for (const size_t rank : ranks)
    if (facts_[rank].device.empty()) return rank_text(rank) + " computes on the CPU";
  for (const size_t rank : ranks)
    if (facts_[rank].version == 0)
      return fmt::format("{}: {}", rank_text(rank), facts_[rank].reason);
  for (size_t i = 0; i < ranks.size(); ++i) {
    const Fact& a = facts_[ranks[i]];
    for (size_t j = 0; j < i; ++j) {
      const Fact& b = facts_[ranks[j]];
      if (a.device != b.device || a.host != b.host || (a.shares && b.shares)) continue;
      return fmt::format(
          "ranks {} and {} share a GPU of host {}, which NCCL serves from version {} on, with "
          "NCCL_MULTI_RANK_GPU_ENABLE=1",
          ranks[j],
          ranks[i],
          escaped(a.host),
          nccl_number_text(kSharedGpuNccl));
    }
  }
  return {};
}

std::shared_ptr<NcclLink> DeviceGroups::make_link(Communicator& group) {
  if (stage_.absent()) stage_ = link_.device->allocate(DType::kF32, {link_.stage_bytes / 4});
  GLM_CHECK(stage_.rows() > 2 * group.size(), "a stage of {} bytes", link_.stage_bytes);
  const std::string text = rank_text(static_cast<size_t>(world_.rank()));
  return std::make_shared<NcclLink>(
      group, NcclLink::Rank{library_, *link_.device, link_.options, text, world_});
}

std::unique_ptr<Communicator> DeviceGroups::wrap(std::unique_ptr<Communicator> group) {
  const int size = group->size();
  auto own = static_cast<int32_t>(world_.rank());
  std::vector<int32_t> members(static_cast<size_t>(size));
  const std::vector<int64_t> ones(members.size(), 1);
  group->all_gather(
      host_tensor(members.data(), DType::kI32, {size}), host_tensor(&own, DType::kI32, {1}), ones);
  const std::vector<size_t> ranks(members.begin(), members.end());
  if (size == 1) {
    if (link_.device->is_host()) return group;
    return std::make_unique<NcclCommunicator>(std::move(group), shared_from_this(), nullptr);
  }
  const std::string reason = obstacle(ranks);
  if (!reason.empty()) {
    if (link_.nccl == NcclUse::kOn)
      fail(ExitCode::kUsage, "NCCL cannot serve group {}: {}", group->name(), reason);
    return group;
  }
  std::shared_ptr<NcclLink>& link = links_[ranks];
  const bool fresh = !link;
  if (fresh) link = make_link(*group);
  auto made = std::make_unique<NcclCommunicator>(std::move(group), shared_from_this(), link);
  if (fresh) made->warm_up();
  return made;
}

}  // namespace glm
