// SHA-256 of files, and manifests that `sha256sum -c` reads. OpenSSL does the work.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace glm {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(const void* data, size_t bytes);
  // 64 hexadecimal digits; the last call.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// OUT.h5.sha256 of OUT.h5.
std::filesystem::path manifest_path(const std::filesystem::path& file);

// The line of a manifest, in the escaped form where the name needs it.
std::string manifest_line(const std::string& digest, std::string_view name);

}  // namespace glm
