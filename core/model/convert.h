// From a Hugging Face checkpoint (or from random numbers) to the model file, tensor by tensor
// within a memory bound. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/model/tensor_specs.h"

namespace glm {

struct ConvertProgress {
  int64_t done = 0;     // bytes written, or hashed
  int64_t resumed = 0;  // of them, there at the start
  int64_t total = 0;
  std::string what;      // name of the tensor
  bool hashing = false;  // the file is complete and is read back for its manifest
};

struct ConvertOptions {
  DTypeChoice dtypes;
  int threads = 1;
  int64_t memory_limit = std::numeric_limits<int64_t>::max();  // of the whole process, in bytes
  int64_t batch_bytes = int64_t{32} << 20;  // encoded and written together, at most
  uint64_t seed = 0;                        // synthetic models
  // Goes on where a killed conversion of the same source and options ended.
  bool resume = false;
  std::function<void(const ConvertProgress&)> progress;  // called as work goes on
};

struct ConvertReport {
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;          // of weights
  int64_t resumed_bytes = 0;  // of them, found by --resume
  int64_t peak_memory = 0;    // of the process, in bytes
  bool has_mtp = false;
  std::vector<std::string> warnings;  // one line each
};

// Throws Error(kModelFile) naming tensor and file for a missing, extra, mis-shaped or unreadable
// tensor, non-finite values, unknown families; nothing is left behind.
ConvertReport convert_checkpoint(const std::filesystem::path& folder,
                                 const std::filesystem::path& out,
                                 const ConvertOptions& options);

// A random model of the shape of config.json: the same numbers for the same seed whatever the
// threads or limits, drawn so that activations stay of order one through all layers.
ConvertReport convert_synthetic(const std::filesystem::path& config_json,
                                const std::filesystem::path& out,
                                const ConvertOptions& options);

}  // namespace glm
