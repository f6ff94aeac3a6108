// Our own reading of the HDF5 structures that the library would follow, before it is let near a
// file: an object header, message or link that the format of model files does not have is refused,
// so that a forged file cannot reach the library's parsers with anything else. Reference: HDF5 file
// format specification 3.0. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "core/base/check.h"
#include "io/raw_file.h"

namespace glm {

inline constexpr uint64_t kHdf5Undefined = ~uint64_t{0};

// The checksum of HDF5 structures: lookup3 of Bob Jenkins.
uint32_t hdf5_checksum(std::string_view bytes);

// Reads structures of one file, each at most once, and bounds what they may hold.
class Hdf5Bytes {
 public:
  explicit Hdf5Bytes(const RawFile& file) : file_(file) {}

  // `bytes` at `at`. Refuses ranges outside the file, structures above 1 MiB, and more than 512 MiB
  // in all: structures that overlap would be read again and again.
  std::string block(uint64_t at, uint64_t bytes);
  // The same with the checksum behind it verified, and the signature in front.
  std::string sealed(uint64_t at, uint64_t bytes, std::string_view signature);
  // Marks the structure at `at` as read; false when it was before.
  bool first_visit(uint64_t at) { return seen_.insert(at).second; }
  // A structure may be part of one other only.
  void claim(uint64_t at);

  template <class... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ExitCode::kModelFile,
         "{}: {}",
         escaped(file_.path()),
         fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const RawFile& file_;
  uint64_t left_ = uint64_t{512} << 20;
  std::unordered_set<uint64_t> seen_;
};

// Little-endian numbers out of a structure; running over its end is an error that names it.
class Hdf5Cursor {
 public:
  Hdf5Cursor(const Hdf5Bytes& file, std::string_view bytes, std::string what)
      : file_(file), left_(bytes), what_(std::move(what)) {}

  std::string_view take(uint64_t bytes);
  uint64_t number(size_t bytes);
  // The next number must be `wanted`.
  void expect(size_t bytes, uint64_t wanted, std::string_view field);
  size_t left() const { return left_.size(); }
  std::string_view rest() const { return left_; }
  [[noreturn]] void reject(std::string_view reason) const;

 private:
  const Hdf5Bytes& file_;
  std::string_view left_;
  std::string what_;
};

// Calls `link` with the bytes of every link message of a group that keeps its links in a fractal
// heap with a B-tree of their names.
void walk_dense_links(Hdf5Bytes& file,
                      uint64_t heap,
                      uint64_t tree,
                      const std::function<void(std::string_view)>& link);

// Superblock of the version that our writers give; returns the address of the root group. Throws
// Error(kModelFile) that names path, reason and, where there is one, `remedy`.
inline constexpr int64_t kHdf5SuperblockBytes = 48;
uint64_t check_hdf5_superblock(const RawFile& file, std::string_view remedy);

// Walks everything that can be reached from the object header at `root`. Throws Error(kModelFile)
// that names path, object and reason.
void check_hdf5_structures(const RawFile& file, uint64_t root);

}  // namespace glm
