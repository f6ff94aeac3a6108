// SPDX-License-Identifier: MIT
#include "parallel/process_grid.h"

#include <algorithm>
#include <set>

#include <fmt/ranges.h>

namespace glm {
namespace {

void check_positive(const char* option, const std::optional<int>& value) {
  if (value && *value < 1) fail(ExitCode::kUsage, "{} {}: must be at least 1", option, *value);
}

std::string divisors_text(int number) {
  std::string text;
  for (int d = 1; d <= number; ++d)
    if (number % d == 0) text += fmt::format("{}{}", text.empty() ? "" : ", ", d);
  return text;
}

// 1 and the divisors of tensor (an expert is sliced over tensor / E ranks), and k * tensor for k
// dividing data (whole experts over k neighbouring data groups).
std::set<int> legal_experts(int data, int tensor) {
  std::set<int> legal;
  for (int d = 1; d <= tensor; ++d)
    if (tensor % d == 0) legal.insert(d);
  for (int k = 1; k <= data; ++k)
    if (data % k == 0) legal.insert(k * tensor);
  return legal;
}

int complete_expert(const std::optional<int>& expert, int data, int tensor, bool is_moe) {
  if (!is_moe) {
    if (expert.value_or(1) != 1)
      fail(ExitCode::kUsage,
           "--expert {}: the model has no experts; leave it out or take 1",
           *expert);
    return 1;
  }
  if (!expert) return data * tensor;
  const std::set<int> legal = legal_experts(data, tensor);
  if (legal.count(*expert) == 0)
    fail(ExitCode::kUsage,
         "--expert {} does not fold data {} x tensor {}: legal values are {}",
         *expert,
         data,
         tensor,
         fmt::join(legal, ", "));
  return *expert;
}

}  // namespace

std::string GridShape::text() const {
  return fmt::format(
      "data {} x pipeline {} x tensor {}, expert {}", data, pipeline, tensor, expert);
}

int expert_slices(const GridShape& shape) {
  return shape.tensor % shape.expert == 0 ? shape.tensor / shape.expert : 1;
}

int exchange_size(const GridShape& shape) { return std::max(shape.tensor, shape.expert); }

int exchange_group(const GridShape& shape, const GridCoord& coord) {
  return grid_rank(shape, coord.data, coord.pipeline, coord.tensor) / exchange_size(shape);
}

int grid_rank(const GridShape& shape, int data, int pipeline, int tensor) {
  return (pipeline * shape.data + data) * shape.tensor + tensor;
}

GridCoord grid_coord(const GridShape& shape, int rank) {
  GLM_CHECK(rank >= 0 && rank < shape.world(), "rank {} of {}", rank, shape.text());
  GridCoord coord;
  coord.tensor = rank % shape.tensor;
  coord.data = rank / shape.tensor % shape.data;
  coord.pipeline = rank / (shape.tensor * shape.data);
  // A stage is made of whole exchange groups, so the rank tells its place in one.
  const int place = rank % exchange_size(shape);
  coord.expert = place / expert_slices(shape);
  coord.expert_slice = place % expert_slices(shape);
  return coord;
}

GridShape complete_grid(const GridRequest& request, int world, bool is_moe) {
  GLM_CHECK(world >= 1, "a world of {}", world);
  check_positive("--data", request.data);
  check_positive("--pipeline", request.pipeline);
  check_positive("--tensor", request.tensor);
  check_positive("--expert", request.expert);
  GridShape shape;
  if (!request.data && !request.pipeline && !request.tensor) {
    shape.tensor = world % 2 == 0 ? 2 : 1;
    shape.pipeline = world / shape.tensor;
  } else {
    const int64_t data = request.data.value_or(1);
    const int64_t tensor = request.tensor.value_or(1);
    // Each factor is below 2^31 and data * tensor <= world where the third is multiplied.
    if (data * tensor > world || world % (data * tensor) != 0)
      fail(ExitCode::kUsage,
           "data {} x tensor {} does not divide the job's {} rank{}: their product must be one of "
           "{}",
           data,
           tensor,
           world,
           world == 1 ? "" : "s",
           divisors_text(world));
    const int64_t rest = world / (data * tensor);
    if (request.pipeline.value_or(static_cast<int>(rest)) != rest)
      fail(
          ExitCode::kUsage,
          "data {} x pipeline {} x tensor {} is not the job's {} rank{}: with this data and tensor "
          "--pipeline must be {}",
          data,
          *request.pipeline,
          tensor,
          world,
          world == 1 ? "" : "s",
          rest);
    shape.data = static_cast<int>(data);
    shape.tensor = static_cast<int>(tensor);
    shape.pipeline = static_cast<int>(rest);
  }
  shape.expert = complete_expert(request.expert, shape.data, shape.tensor, is_moe);
  return shape;
}

ProcessGrid::ProcessGrid(Communicator& world, const GridShape& shape, const DeviceLink& link)
    : world_(world), shape_(shape) {
  GLM_CHECK(shape.world() == world.size(), "{} for {} ranks", shape.text(), world.size());
  GLM_CHECK(legal_experts(shape.data, shape.tensor).count(shape.expert) == 1,
            "{} cannot be folded",
            shape.text());
  coord_ = grid_coord(shape, world.rank());
  if (link.device != nullptr) {
    groups_ = std::make_shared<DeviceGroups>(world, link);
    own_world_ = group(0, world.rank(), "world");
  }
  tensor_ = group(world.rank() / shape.tensor, coord_.tensor, "tensor");
  const int plane = exchange_size(shape);
  exchange_ = group(world.rank() / plane, world.rank() % plane, "expert");
  const int slices = expert_slices(shape);
  slices_ = group(world.rank() / slices, world.rank() % slices, "expert slice");
}

std::unique_ptr<Communicator> ProcessGrid::group(int color, int key, const char* name) {
  auto hosts = world_.split(color, key, name);
  return groups_ ? groups_->wrap(std::move(hosts)) : std::move(hosts);
}

int ProcessGrid::rank_of_stage(int pipeline) const {
  return grid_rank(shape_, coord_.data, pipeline, coord_.tensor);
}

}  // namespace glm
