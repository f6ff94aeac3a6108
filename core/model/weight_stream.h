// Streams tensors into a model file: rows come as f32 from a source, are encoded by several threads
// in pieces of whole tiles, and are written in order within a memory bound. The bytes do not depend
// on threads or bound. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/convert.h"
#include "io/model_file.h"

namespace glm {

// One tensor of the file to be written.
struct StreamTensor {
  TensorSpec spec;
  StoredType type;
};

// Where the numbers come from: rows in the order of the spec (gate rows before up rows), matrix
// after matrix; the elements of a vector count as rows of one column. Called by several threads.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Rows [first, first + count) of tensor number `tensor` of the list.
  virtual void read(size_t tensor, int64_t first, int64_t count, float* out) const = 0;
};

// What goes into a file besides the weights.
struct FileHeader {
  std::string architecture;
  ModelTexts texts;
  std::string fingerprint;
  std::string stamp;  // sizes and times of the source, for --resume
};

// Writes the whole file; fills in what a resumed conversion found, and warns when it found nothing.
// Throws Error(kResources) when the memory bound is too small for a tile.
void stream_model(const std::filesystem::path& out,
                  const FileHeader& header,
                  const std::vector<StreamTensor>& tensors,
                  const RowSource& source,
                  const ConvertOptions& options,
                  ConvertReport& report);

// Memory of this process in bytes: resident now, and at most so far.
struct MemoryUse {
  int64_t now = 0;
  int64_t peak = 0;
};
MemoryUse memory_use();

// Largest magnitude that a stored type can hold with a finite scale; infinite for f32 and bf16.
float largest_storable(DType dtype);

}  // namespace glm
