// Reads this rank's parts of tensors from a model file: plane by plane, by several threads, into
// host memory or by way of it to a device. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/device.h"
#include "core/model/shard.h"
#include "core/model/weights.h"
#include "io/model_file.h"

namespace glm {

// A plane (values or scales) of a slab of a tensor, and where its bytes go.
struct PlaneRead {
  const TensorSpec* spec;
  const Slab* slab;
  StoredType type;
  WeightReader::Plane plane;
  Tensor target;  // [bytes] u8
};

class PlaneReader {
 public:
  // Each thread has the file open for itself. Throws what WeightReader throws.
  PlaneReader(const ModelIndex& index, bool verify, const LoadWork& work);

  // Returns when all is in place. Throws what one of the threads threw.
  void read(const std::vector<PlaneRead>& reads, Device& device);
  int64_t bytes_read() const;

  // Host memory that reading to a device takes.
  static int64_t staging_bytes() { return 2 * kStageBytes; }

 private:
  static constexpr int64_t kStageBytes = int64_t{64} << 20;
  static constexpr int64_t kPieceBytes = int64_t{8} << 20;
  using Range = WeightReader::Range;
  // Part of a plane: at most kPieceBytes.
  struct Piece {
    const PlaneRead* read;
    int64_t bytes = 0;
    std::vector<Range> ranges = {};
    Tensor target = {};
  };
  void to_host(const std::vector<PlaneRead>& reads);
  std::vector<Piece> pieces_of(const PlaneRead& read) const;
  void to_device(const std::vector<PlaneRead>& reads, Device& device);
  void read_piece(WeightReader& reader, const PlaneRead& read, const std::vector<Range>& ranges);
  // work(reader, i) for each i below count, by whichever thread is free.
  void share_out(size_t count, const std::function<void(WeightReader&, size_t)>& work);

  const ModelIndex& index_;
  std::function<void()> between_;
  std::vector<std::unique_ptr<WeightReader>> readers_;
};

}  // namespace glm
