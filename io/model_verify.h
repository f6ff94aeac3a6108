// Reads a whole model file and compares every checksum it carries, and the manifest beside it.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

namespace glm {

struct VerifyReport {
  int64_t tensors = 0;
  int64_t blocks = 0;  // of the weights, each with a CRC-32C
  int64_t weight_bytes = 0;
  int64_t file_bytes = 0;
  bool manifest = false;  // OUT.h5.sha256 was there, and agrees
};

// `progress` gets bytes read and bytes to be read. Throws Error(kUsage) when the file is not there,
// Error(kModelFile) for what read_model_index() refuses, naming the first damaged block, or when
// the file is not the one of its manifest.
VerifyReport verify_model_file(
    const std::filesystem::path& path,
    int threads,
    const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace glm
