// CRC-32C (Castagnoli), the checksum of the model file's blocks and index.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>

namespace glm {

// Checksum of A||B where `crc` is the one of A (0 for nothing). Uses the CPU's CRC instruction
// where there is one.
uint32_t crc32c(uint32_t crc, const void* data, size_t bytes);

// The same by tables, on any CPU.
uint32_t crc32c_portable(uint32_t crc, const void* data, size_t bytes);

}  // namespace glm
