// A file that is being written by absolute position, by several threads if need be; its errors say
// whether the path or the disk is at fault. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/base/check.h"

namespace glm {

class OutputFile {
 public:
  OutputFile() = default;
  ~OutputFile() { close(); }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Creates or empties the file. Throws Error(kUsage) when the path does not allow it.
  void create(const std::string& path);
  // Opens a file that is there; false when that is not possible.
  bool open_existing(const std::string& path);
  void close();

  // Claims the space of the whole file, so that a full disk shows at once. File systems that
  // cannot are left alone.
  void reserve(int64_t bytes) const;
  // Throws Error(kResources). Large pieces begin to travel to the disk at once.
  void write(int64_t offset, const void* data, int64_t bytes) const;
  // An end of the file before `bytes` is an error.
  void read(int64_t offset, void* out, int64_t bytes) const;
  void sync() const;
  int64_t size() const;

 private:
  void open(const std::string& path, int flags);
  [[noreturn]] void failed(const char* what, int error) const;

  std::string path_;
  int fd_ = -1;
};

// Makes names in a folder last.
void sync_folder(const std::filesystem::path& folder);

// Throws Error(kResources).
void rename_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace glm
