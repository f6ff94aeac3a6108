// SPDX-License-Identifier: MIT
#include "core/model/weights.h"

#include <atomic>
#include <chrono>
#include <future>

#include "core/base/arena.h"
#include "core/base/fault.h"

namespace glm {
namespace {

using Plane = WeightReader::Plane;

// One plane of a stored tensor as lines of whole columns: a row, or a row of tiles.
class PlaneLayout {
 public:
  PlaneLayout(const TensorSpec& spec, StoredType type, Plane plane)
      : type_(type),
        plane_(plane),
        line_rows_(type.packing == Packing::kTile16 ? kTileRows : 1),
        rows_(spec.dims.size() == 1 ? spec.dims[0] : spec.rows()),
        cols_(spec.dims.size() == 1 ? 1 : spec.cols()) {}

  // Bytes of `cols` columns of one line.
  int64_t line_bytes(int64_t cols) const {
    return plane_ == Plane::kValues ? value_bytes(type_.dtype, line_rows_, cols)
                                    : scale_bytes(type_.dtype, line_rows_, cols);
  }

  // The byte ranges of a slab, in the order of the local plane at `destination`.
  std::vector<WeightReader::Range> ranges(const Slab& slab, char* destination) const {
    std::vector<WeightReader::Range> out;
    const int64_t length = line_bytes(slab.cols.size());
    if (length == 0) return out;
    const bool whole = slab.cols.size() == cols_;
    for (int64_t m = slab.matrices.begin; m < slab.matrices.end; ++m) {
      for (const Range& rows : slab.rows) {
        GLM_CHECK(rows.begin % line_rows_ == 0 && rows.end % line_rows_ == 0,
                  "slab rows [{}, {}) do not fall on tiles",
                  rows.begin,
                  rows.end);
        const int64_t first = (m * rows_ + rows.begin) / line_rows_;
        const int64_t lines = rows.size() / line_rows_;
        const int64_t start = first * line_bytes(cols_) + line_bytes(slab.cols.begin);
        const int64_t runs = whole ? (lines > 0 ? 1 : 0) : lines;
        for (int64_t i = 0; i < runs; ++i) {
          const int64_t bytes = whole ? lines * length : length;
          out.push_back({start + i * line_bytes(cols_), bytes, destination});
          destination += bytes;
        }
      }
    }
    return out;
  }

 private:
  StoredType type_;
  Plane plane_;
  int64_t line_rows_;
  int64_t rows_;
  int64_t cols_;
};

// A plane of this rank's slab of a tensor, and where it goes. Its ranges are many: they are made
// when it is read.
struct PlaneRead {
  const TensorSpec* spec;
  const Slab* slab;
  StoredType type;
  Plane plane;
  char* destination;
};

// Each plane by whichever thread is free; returns the bytes read. Throws what one of them threw.
int64_t read_planes(const ModelIndex& index,
                    bool verify,
                    const std::vector<PlaneRead>& reads,
                    int threads) {
  std::atomic<size_t> next{0};
  std::atomic<int64_t> bytes{0};
  const auto work = [&] {
    try {
      WeightReader reader(index, verify);
      for (size_t i = next++; i < reads.size(); i = next++) {
        const auto& [spec, slab, type, plane, destination] = reads[i];
        reader.read(*index.find(spec->name),
                    plane,
                    PlaneLayout(*spec, type, plane).ranges(*slab, destination));
      }
      bytes += reader.bytes_read();
    } catch (...) {
      next = reads.size();  // the others need not go on
      throw;
    }
  };
  std::vector<std::future<void>> others;
  for (int i = 1; i < threads; ++i) others.push_back(std::async(std::launch::async, work));
  work();
  for (std::future<void>& other : others) other.get();
  return bytes;
}

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

Weights::Weights(const ModelConfig& config,
                 const ModelIndex& index,
                 const Placement& placement,
                 Device& device,
                 bool verify,
                 int threads)
    : device_(device) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<TensorSpec> specs = tensor_specs(config, placement.mtp);
  int64_t total = 0;
  for (const TensorSpec& spec : specs) {
    if (spec.optional) continue;  // a copy in the MTP layer, which no rank holds
    const TensorEntry& entry = entry_of(index, spec);
    const StoredType type{entry.dtype, entry.packing};
    const Slab slab = shard_of(spec, type, config, placement);
    if (slab.matrices.size() == 0 && slab.rows.empty() && slab.cols.size() == 0)
      continue;  // another stage holds it
    const Weight weight = local_weight(slab, type);
    bytes_ += weight.bytes();
    total += Arena::padded(weight.n_matrices * weight.value_stride()) +
             Arena::padded(weight.n_matrices * weight.scale_stride());
    held_.emplace(spec.name, Held{slab, weight});
  }

  const Tensor memory = device.allocate(DType::kU8, {total});
  GLM_CHECK(device.is_host(), "weights of device {} need staging", device.name());
  std::vector<PlaneRead> reads;
  std::vector<int64_t> ends;  // of the memory of each tensor
  int64_t used = 0;
  for (const TensorSpec& spec : specs) {
    const auto found = held_.find(spec.name);
    if (found == held_.end()) continue;
    auto& [slab, weight] = found->second;
    const StoredType type{weight.dtype, weight.packing};
    const auto place = [&](Plane plane, int64_t bytes) -> const void* {
      if (bytes == 0) return nullptr;
      char* destination = memory.as<char>() + used;
      used += Arena::padded(bytes);
      reads.push_back({&spec, &slab, type, plane, destination});
      return destination;
    };
    weight.values = place(Plane::kValues, weight.n_matrices * weight.value_stride());
    weight.scales = place(Plane::kScales, weight.n_matrices * weight.scale_stride());
    ends.push_back(used);
  }
  bytes_read_ = read_planes(index, verify, reads, readers(threads));
  const GridCoord& coord = placement.coord;
  const int rank = grid_rank(placement.shape, coord.data, coord.pipeline, coord.tensor);
  int64_t n_read = 0;
  for (const int64_t end : ends) fault_point({"load", rank, ++n_read}, memory.slice(0, end));
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
