// What the fuzz targets share: each defines LLVMFuzzerTestOneInput, which libFuzzer or driver.cpp
// calls with bytes of every kind. A broken promise aborts, so that either of them keeps the input.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace glm::fuzz {

// Aborts with `promise` on stderr unless it holds.
void require(bool holds, std::string_view promise);

// Ends the input unless the error has one of these codes and is one printable line.
void judge(const Error& error, std::initializer_list<ExitCode> codes);

// Runs `work` and returns whether it went through. An Error must satisfy judge(); every other
// exception is a finding.
template <class F>
bool accepts(std::initializer_list<ExitCode> codes, const F& work) {
  try {
    work();
    return true;
  } catch (const Error& error) {
    judge(error, codes);
    return false;
  }
}

// `count` parts, divided by lines "@@@@"; those that are absent are empty.
std::vector<std::string_view> parts(const uint8_t* data, size_t size, size_t count);

// A regular file in memory that can be opened by its path.
class MemoryFile {
 public:
  MemoryFile();
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void set(std::string_view bytes) const;
  const std::string& path() const { return path_; }

 private:
  int file_ = -1;
  std::string path_;
};

}  // namespace glm::fuzz
