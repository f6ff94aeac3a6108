// A regular file opened for reading: never a FIFO, device or directory, read by absolute position,
// so that several threads may share it. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/base/check.h"

namespace glm {

class RawFile {
 public:
  // Symbolic links are followed. Throws Error(code) with path and reason.
  RawFile(const std::filesystem::path& path, ExitCode code);
  ~RawFile();
  RawFile(RawFile&& other) noexcept;
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;

  // Bytes when it was opened.
  int64_t size() const { return size_; }
  // Time of its last change before that, since 1970.
  int64_t changed_nanoseconds() const { return changed_; }
  const std::string& path() const { return path_; }

  // Reads up to `bytes` at `offset`; returns fewer only at the end of the file. Throws Error(code)
  // on read errors. Thread-safe.
  int64_t read_some(int64_t offset, void* out, int64_t bytes) const;
  // The same, but an end of the file before `bytes` is an error: it has become shorter.
  void read(int64_t offset, void* out, int64_t bytes) const;
  // Lets the system begin to read what will be wanted soon. A hint: never fails.
  void will_need(int64_t offset, int64_t bytes) const;

 private:
  std::string path_;
  ExitCode code_;
  int fd_ = -1;
  int64_t size_ = 0;
  int64_t changed_ = 0;
};

// Text of an errno value, independent of the locale's thread safety.
std::string errno_text(int error);

}  // namespace glm
