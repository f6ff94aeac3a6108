// SPDX-License-Identifier: MIT
#include "core/model/weights.h"

#include <chrono>

#include "core/base/arena.h"
#include "core/base/fault.h"
#include "core/model/weight_planes.h"

namespace glm {
namespace {

Weight local_weight(const Slab& slab, StoredType type) {
  Weight weight;
  weight.dtype = type.dtype;
  weight.packing = type.packing;
  weight.n_matrices = slab.matrices.size();
  weight.rows = slab.local_rows();
  weight.cols = slab.cols.size();
  return weight;
}

const TensorEntry& entry_of(const ModelIndex& index, const TensorSpec& spec) {
  const TensorEntry* entry = index.find(spec.name);
  if (entry == nullptr)
    fail(ExitCode::kModelFile,
         "{}: the tensor {} is missing; convert the checkpoint again",
         index.path,
         spec.name);
  if (entry->dims != spec.dims)
    fail(ExitCode::kModelFile,
         "{}: the tensor {} is [{}], its config.json asks for [{}]",
         index.path,
         spec.name,
         fmt::join(entry->dims, ", "),
         fmt::join(spec.dims, ", "));
  const bool vector = spec.role == Role::kVector || spec.role == Role::kRouter;
  if (vector && (entry->dtype != DType::kF32 || entry->packing != Packing::kRows))
    fail(ExitCode::kModelFile,
         "{}: the tensor {} is {}, it must be f32",
         index.path,
         spec.name,
         dtype_name(entry->dtype));
  return *entry;
}

}  // namespace

std::map<std::string, StoredType, std::less<>> stored_types(const ModelIndex& index) {
  std::map<std::string, StoredType, std::less<>> types;
  for (const TensorEntry& entry : index.entries)
    types.emplace(entry.name, StoredType{entry.dtype, entry.packing});
  return types;
}

int64_t Weights::hold(const std::vector<TensorSpec>& specs,
                      const ModelConfig& config,
                      const Placement& placement,
                      const TypeOf& type_of) {
  int64_t total = 0;
  for (const TensorSpec& spec : specs) {
    if (spec.optional) continue;  // a copy in the MTP layer, which no rank holds
    const StoredType type = type_of(spec);
    const Slab slab = shard_of(spec, type, config, placement);
    if (slab.matrices.size() == 0 && slab.rows.empty() && slab.cols.size() == 0)
      continue;  // another stage holds it
    const Weight weight = local_weight(slab, type);
    bytes_ += weight.bytes();
    total += Arena::padded(weight.n_matrices * weight.value_stride()) +
             Arena::padded(weight.n_matrices * weight.scale_stride());
    held_.emplace(spec.name, Held{slab, weight});
  }
  return total;
}

std::vector<PlaneRead> Weights::allocate(const std::vector<TensorSpec>& specs, int64_t total) {
  memory_ = device_.allocate(DType::kU8, {total});
  std::vector<PlaneRead> planes;
  int64_t used = 0;
  for (const TensorSpec& spec : specs) {
    const auto found = held_.find(spec.name);
    if (found == held_.end()) continue;
    auto& [slab, weight] = found->second;
    const StoredType type{weight.dtype, weight.packing};
    const auto place = [&](WeightReader::Plane plane, int64_t bytes) -> const void* {
      if (bytes == 0) return nullptr;
      const Tensor target = memory_.slice(used, bytes);
      used += Arena::padded(bytes);
      planes.push_back({&spec, &slab, type, plane, target});
      return target.data;
    };
    weight.values = place(WeightReader::Plane::kValues, weight.n_matrices * weight.value_stride());
    weight.scales = place(WeightReader::Plane::kScales, weight.n_matrices * weight.scale_stride());
  }
  return planes;
}

Weights::Weights(const ModelConfig& config,
                 const ModelIndex& index,
                 const Placement& placement,
                 Device& device,
                 bool verify,
                 const LoadWork& work)
    : device_(device) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<TensorSpec> specs = tensor_specs(config, placement.mtp);
  const auto type_of = [&](const TensorSpec& spec) {
    const TensorEntry& entry = entry_of(index, spec);
    return StoredType{entry.dtype, entry.packing};
  };
  const int64_t total = hold(specs, config, placement, type_of);
  const std::vector<PlaneRead> reads = allocate(specs, total);
  PlaneReader reader(index, verify, {readers(work.threads), work.between});
  reader.read(reads, device);
  bytes_read_ = reader.bytes_read();
  const GridCoord& coord = placement.coord;
  const int rank = grid_rank(placement.shape, coord.data, coord.pipeline, coord.tensor);
  int64_t n_read = 0;
  for (size_t i = 0; i < reads.size(); ++i) {
    if (i + 1 < reads.size() && reads[i + 1].spec == reads[i].spec) continue;
    const Tensor last = reads[i].target;
    const int64_t end = last.as<char>() + last.bytes() - memory_.as<char>();
    fault_point({"load", rank, ++n_read}, memory_.slice(0, end));
  }
  load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

const Weights::Held& Weights::held(std::string_view name) const {
  const auto found = held_.find(name);
  GLM_CHECK(found != held_.end(), "tensor {} is not on this rank", name);
  return found->second;
}

const Weight& Weights::matrix(std::string_view name) const { return held(name).weight; }

const Slab& Weights::slab(std::string_view name) const { return held(name).slab; }

Tensor Weights::vector(std::string_view name) const {
  if (!contains(name)) return {};
  const Weight& weight = held(name).weight;
  Tensor tensor =
      host_tensor(const_cast<void*>(weight.values), DType::kF32, {weight.rows * weight.cols});
  tensor.device = &device_;
  return tensor;
}

}  // namespace glm
