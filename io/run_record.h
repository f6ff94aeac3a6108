// An HDF5 file of named tables: what a run record is made of (docs/run_records.md). Appears under
// its name only when complete. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace glm {

class RunRecordFile {
 public:
  // Throws Error(kUsage) when the path is not writable.
  explicit RunRecordFile(const std::filesystem::path& path);
  ~RunRecordFile();  // removes what is unfinished
  RunRecordFile(const RunRecordFile&) = delete;
  RunRecordFile& operator=(const RunRecordFile&) = delete;

  // `name` is a path, "ranks/host"; groups on the way are made. Each name is written once. All of
  // these throw Error(kResources) when the disk is full.
  void text(const std::string& name, std::string_view value);  // UTF-8, one string
  void texts(const std::string& name, const std::vector<std::string>& values);
  // Row-major; the product of dims is the number of values.
  void integers(const std::string& name,
                std::span<const int64_t> values,
                const std::vector<int64_t>& dims);
  void numbers(const std::string& name,
               std::span<const double> values,
               const std::vector<int64_t>& dims);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace glm
