// Handles of the HDF5 C library that close themselves, every return code checked, and the library's
// own words in our errors. Only io/ includes this. One thread at a time: the library has global
// state. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hdf5.h>

#include "core/base/check.h"
#include "io/model_layout.h"

namespace glm {

class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  ~Hdf5Handle() { static_cast<void>(close()); }
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  operator hid_t() const { return id_; }
  // For handles whose closing may fail.
  herr_t close() { return id_ < 0 ? 0 : close_(std::exchange(id_, H5I_INVALID_HID)); }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

// Calls into the library for one file. While it lives the library prints nothing; it never loads
// filter plugins.
class Hdf5Calls {
 public:
  // `path` begins every message, `code` is thrown.
  Hdf5Calls(std::string path, ExitCode code);
  ~Hdf5Calls();
  Hdf5Calls(const Hdf5Calls&) = delete;
  Hdf5Calls& operator=(const Hdf5Calls&) = delete;

  Hdf5Handle handle(hid_t id, Hdf5Handle::Close closer, std::string_view what) const;
  // A negative value is the library's sign of failure.
  template <class T>
  T check(T value, std::string_view what) const {
    if (value < 0) failed(what);
    return value;
  }
  // "path: what: reason of the library".
  [[noreturn]] void failed(std::string_view what) const;
  template <class... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) const {
    fail(code_, "{}: {}", escaped(path_), fmt::format(format, std::forward<Args>(args)...));
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  ExitCode code_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

// Opens without file locks (they fail on some cluster file systems; the superblock's own mark tells
// a reader of an unfinished writer).
Hdf5Handle hdf5_access(const Hdf5Calls& calls);

// Little-endian type of an element in the file.
Hdf5Handle hdf5_type(const Hdf5Calls& calls, Element element);

// Scalar attributes. Reading a string takes at most 1024 bytes of fixed length.
void write_text_attribute(const Hdf5Calls& calls,
                          hid_t object,
                          const char* name,
                          std::string_view value);
void create_u32_attribute(const Hdf5Calls& calls, hid_t object, const char* name, uint32_t value);
void overwrite_u32_attribute(const Hdf5Calls& calls,
                             hid_t object,
                             const char* name,
                             uint32_t value);
void write_sizes_attribute(const Hdf5Calls& calls,
                           hid_t object,
                           const char* name,
                           std::span<const int64_t> values);
std::string read_text_attribute(const Hdf5Calls& calls, hid_t object, const char* name);
uint32_t read_u32_attribute(const Hdf5Calls& calls, hid_t object, const char* name);

}  // namespace glm
