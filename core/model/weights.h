// This rank's share of the weights: read by slabs from the model file into one allocation of the
// device, reached by the names of the tensor table. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/device.h"
#include "core/model/shard.h"
#include "io/model_file.h"
#include "kernels/types.h"

namespace glm {

class Ops;
struct PlaneRead;
struct SyntheticModel;

// The stored types a model file states, by tensor name.
std::map<std::string, StoredType, std::less<>> stored_types(const ModelIndex& index);

struct LoadWork {
  int threads = 1;
  // Called between parts, by any of the threads. What it throws ends the loading. May be empty.
  std::function<void()> between = {};
};

class Weights {
 public:
  // Reads every tensor of the table that this rank holds, with readers(threads) threads.
  // Throws Error(kModelFile) naming the tensor when the file lacks it or has another shape,
  // Error(kResources) without memory.
  Weights(const ModelConfig& config,
          const ModelIndex& index,
          const Placement& placement,
          Device& device,
          bool verify,
          const LoadWork& work = {});

  // Makes them of random numbers, in place (synthetic_weights.cpp).
  Weights(const ModelConfig& config,
          const SyntheticModel& model,
          const Placement& placement,
          Device& device,
          Ops& ops,
          const LoadWork& work = {});

  // Threads of a rank that read at once, each with a block of its own beside the weights.
  static int readers(int threads) { return std::clamp(threads, 1, 8); }

  // A matrix or a stack of them; rows or columns may be 0 where this rank has no share.
  const Weight& matrix(std::string_view name) const;
  // A vector as f32 tensor; absent when the model has none of this name.
  Tensor vector(std::string_view name) const;
  const Slab& slab(std::string_view name) const;
  bool contains(std::string_view name) const { return held_.contains(name); }

  int64_t bytes() const { return bytes_; }  // of values and scales
  int64_t bytes_read() const { return bytes_read_; }
  double load_seconds() const { return load_seconds_; }

 private:
  struct Held {
    Slab slab;
    Weight weight;  // vectors: rows x 1, f32
  };
  using TypeOf = std::function<StoredType(const TensorSpec&)>;
  // What this rank holds; returns its bytes with what aligns them.
  int64_t hold(const std::vector<TensorSpec>& specs,
               const ModelConfig& config,
               const Placement& placement,
               const TypeOf& type_of);
  // One allocation for all of it. Returns the planes in the order of the table.
  std::vector<PlaneRead> allocate(const std::vector<TensorSpec>& specs, int64_t total);
  const Held& held(std::string_view name) const;

  std::map<std::string, Held, std::less<>> held_;
  Device& device_;
  Tensor memory_;
  int64_t bytes_ = 0;
  int64_t bytes_read_ = 0;
  double load_seconds_ = 0;
};

}  // namespace glm
