// Everything of a model file but texts, weights and checksums: groups, datasets, attributes, as the
// HDF5 library lays them out. Only the writer uses it. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/model_file.h"

namespace glm {

struct Skeleton {
  struct Plane {
    std::string name;  // of the dataset
    int64_t offset = 0;
    int64_t bytes = 0;
    int64_t first_block = 0;
  };
  std::vector<Plane> planes;          // by offset
  std::string index_text;             // what /index is to hold
  std::vector<int64_t> text_offsets;  // as text_places(); of those that are not empty
  int64_t index_offset = 0;
  int64_t checksums_offset = 0;
};

// Creates or replaces the file. `index` comes with everything but entries, checksums and
// file_bytes, and gets them; checksums are 0. Throws Error(kResources).
Skeleton write_skeleton(const std::string& path,
                        const std::vector<ModelWriter::TensorShape>& tensors,
                        ModelIndex& index);

// Records the checksum of the index and says that the file is complete. The datasets have been
// filled. Throws Error(kResources).
void seal_model_file(const std::string& path,
                     const ModelIndex& index,
                     const std::string& index_text);

}  // namespace glm
