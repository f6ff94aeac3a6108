// Safetensors files put together by hand, and what a reader must say of bad ones.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "io/safetensors.h"
#include "tests/io/temp_folder.h"

namespace glm {

// A safetensors file of that header and values.
inline std::string shard(const std::string& header, const std::string& values = "") {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + values;
}

// 8 bytes that announce `length`, then `rest`.
inline std::string announced(uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

inline std::string entry(const std::string& name,
                         const std::string& dtype,
                         const std::string& shape,
                         const std::string& offsets) {
  return fmt::format(
      R"("{}": {{"dtype": {}, "shape": {}, "data_offsets": {}}})", name, dtype, shape, offsets);
}

inline std::string one(const std::string& dtype,
                       const std::string& shape,
                       const std::string& offsets) {
  return std::string("{") + entry("w", dtype, shape, offsets) + "}";
}

inline Error open_error(const std::filesystem::path& folder) {
  try {
    const Checkpoint checkpoint(folder);
  } catch (const Error& error) {
    return error;
  }
  return {ExitCode::kOk, "accepted"};
}

inline void expect_bad_checkpoint(const std::filesystem::path& folder, const std::string& reason) {
  const Error error = open_error(folder);
  const std::string message = error.what();
  EXPECT_EQ(error.code(), ExitCode::kModelFile) << message;
  EXPECT_NE(message.find(reason), std::string::npos) << message;
  EXPECT_NE(message.find(folder.filename().string()), std::string::npos) << message;
  EXPECT_LT(message.size(), 1200u);
  for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
}

}  // namespace glm
