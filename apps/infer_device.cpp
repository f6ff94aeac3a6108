// SPDX-License-Identifier: MIT
#include "apps/infer_device.h"

#include <algorithm>
#include <map>
#include <sstream>

namespace glm {
namespace {

DeviceChoice wish_of(const InferOptions& options, int rank) {
  const auto at = static_cast<size_t>(rank);
  return options.device.size() == 1 ? options.device[0] : options.device[at];
}

// host, wish and ids, a line each.
std::string to_text(const RankGpus& gpus) {
  std::string text = fmt::format("{}\n{}", gpus.host, static_cast<int>(gpus.wish));
  for (const std::string& id : gpus.ids) text += "\n" + id;
  return text;
}

RankGpus from_text(const std::string& text) {
  std::istringstream in(text);
  RankGpus gpus;
  std::string line;
  std::getline(in, gpus.host);
  std::getline(in, line);
  gpus.wish = static_cast<DeviceChoice>(std::stoi(line));
  while (std::getline(in, line)) gpus.ids.push_back(line);
  return gpus;
}

}  // namespace

std::vector<int> assign_gpus(const std::vector<RankGpus>& ranks, bool shared) {
  std::map<std::pair<std::string, std::string>, int> taken;  // by host and id
  std::vector<int> assigned;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const RankGpus& rank = ranks[r];
    const auto users = [&](const std::string& id) { return taken[{rank.host, id}]; };
    const auto least = std::min_element(
        rank.ids.begin(), rank.ids.end(), [&](const std::string& a, const std::string& b) {
          return users(a) < users(b);
        });
    const bool sees = rank.wish != DeviceChoice::kCpu && least != rank.ids.end();
    const bool gets = sees && (shared || users(*least) == 0);
    if (rank.wish == DeviceChoice::kCuda && !sees)
      fail(ExitCode::kResources,
           "--device cuda: rank {} on host {} sees no GPU; check nvidia-smi and "
           "CUDA_VISIBLE_DEVICES there, or take --device auto",
           r,
           rank.host);
    if (rank.wish == DeviceChoice::kCuda && !gets)
      fail(ExitCode::kUsage,
           "--device cuda: no GPU is left for rank {} on host {}; start one rank for each GPU, or "
           "add --allow-shared-gpu",
           r,
           rank.host);
    assigned.push_back(gets ? static_cast<int>(least - rank.ids.begin()) : -1);
    if (gets) ++taken[{rank.host, *least}];
  }
  return assigned;
}

std::unique_ptr<Device> open_device(MpiSession& session, const InferOptions& options) {
  Communicator& world = session.world();
  RankGpus mine{session.host(), DeviceChoice::kAuto, {}};
  session.on_root([&] {
    if (options.device.size() > 1 && options.device.size() != static_cast<size_t>(world.size()))
      fail(ExitCode::kUsage,
           "--device has {} values for {} rank{}: give one for all ranks, or one for each",
           options.device.size(),
           world.size(),
           world.size() == 1 ? "" : "s");
  });
  mine.wish = wish_of(options, world.rank());
  if (mine.wish != DeviceChoice::kCpu)
    for (int i = 0; i < cuda_device_count(); ++i) mine.ids.push_back(cuda_device_id(i));
  std::vector<RankGpus> ranks;
  for (const std::string& text : all_gather_strings(world, to_text(mine)))
    ranks.push_back(from_text(text));
  session.on_root([&] { assign_gpus(ranks, options.allow_shared_gpu); });
  const int index = assign_gpus(ranks, options.allow_shared_gpu)[static_cast<size_t>(world.rank())];
  return index < 0 ? make_cpu_device() : make_cuda_device(index, options.timeout);
}

}  // namespace glm
