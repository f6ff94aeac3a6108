// Reading safetensors checkpoints: one file or shards with an index. Headers are untrusted: the
// rules of the reference reader are enforced (header length, UTF-8, no duplicate keys, no holes, no
// overlaps, sizes checked). Values are read on demand with pread. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/dtype.h"

namespace glm {

// Where one tensor of a checkpoint lies.
struct CheckpointTensor {
  std::string name;
  std::string dtype;  // as written in the header: "BF16", "F32", "F16", "F8_E4M3", "I32", ...
  std::vector<int64_t> shape;
  std::string file;    // name of the shard, for messages
  int64_t offset = 0;  // of the values, from the start of the file
  int64_t bytes = 0;
};

class Checkpoint {
 public:
  // Opens model.safetensors.index.json and its shards when the index is there, else
  // model.safetensors, else the only
  // *.safetensors file. Throws Error(kModelFile) with file and tensor: every case of a malformed
  // header or index, a shard missing, a tensor in two shards, a tensor of the index that its shard
  // lacks, a tensor that the index omits.
  explicit Checkpoint(const std::filesystem::path& folder);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;

  const std::map<std::string, CheckpointTensor>& tensors() const { return tensors_; }
  const CheckpointTensor* find(const std::string& name) const;

  // Elements [first, first + count) of a BF16, F16, F32 or F8_E4M3 tensor as f32; scales of FP8
  // weights are the caller's. Throws Error(kModelFile) naming tensor and file when the dtype is
  // another one or the file has become shorter. Thread-safe.
  void read_f32(const CheckpointTensor& tensor, int64_t first, int64_t count, float* out) const;

  // sha256-free identity of the source: names, shapes, dtypes and offsets of all tensors, hashed;
  // hex.
  std::string fingerprint() const;
  int64_t total_bytes() const;
  // Sizes and times of change of the files: other values have another stamp.
  std::string stamp() const;

 private:
  struct Shard;
  std::map<std::string, CheckpointTensor> tensors_;
  std::map<std::string, std::shared_ptr<Shard>> shards_;
};

}  // namespace glm
